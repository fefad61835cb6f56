package sdk_test

import (
	"os"
	"testing"

	"github.com/tasker-systems/tasker-host/internal/leaks"
)

// TestMain runs the tests, or, in a process that a test has started, one of the
// programs that tests need as separate processes.
func TestMain(m *testing.M) {
	if program, ok := programs[os.Getenv(programVariable)]; ok {
		program()
		return
	}
	leaks.Main(m)
}
