package sdk_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the tests, or, in a process that a test has started, one of the
// programs that tests need as other processes.
func TestMain(m *testing.M) {
	if program, ok := programs[os.Getenv(programVariable)]; ok {
		program()
		return
	}
	goleak.VerifyTestMain(m)
}
