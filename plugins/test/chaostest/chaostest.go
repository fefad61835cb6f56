// Package chaostest makes the executables of the chaos plugin for tests of the
// host. It starts nothing.
package chaostest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Build builds the chaos plugin into the directory. Call it once for a test
// binary: in its TestMain, or in the first test that needs it. The executable
// that it returns behaves well until [As] makes it misbehave.
func Build(dir string) (binary string, err error) {
	binary = filepath.Join(dir, "chaos")
	build := exec.Command("go", "build", "-o", binary, "github.com/tasker-systems/tasker-host/plugins/test/chaos")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build chaos plugin: %w\n%s", err, out)
	}
	return binary, nil
}

// As returns a copy of the executable, in a directory of the test, that starts
// in the given mode; the modes are listed in plugins/test/chaos/main.go.
// Different modes have different hashes, because the mode is part of the file.
func As(t testing.TB, binary, mode string) string {
	t.Helper()
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatalf("copy chaos plugin: %v", err)
	}
	path := filepath.Join(t.TempDir(), "chaos-"+mode)
	program = append(program, "\x00chaos:"+mode...)
	// A process that this one forks meanwhile would inherit the open file, and
	// a file open for writing cannot be executed.
	syscall.ForkLock.RLock()
	err = os.WriteFile(path, program, 0o700)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatalf("copy chaos plugin: %v", err)
	}
	return path
}
