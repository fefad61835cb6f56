//go:build unix

package sdk

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// takeStdout saves the real stdout and makes file descriptor 1 a second stderr,
// for Go, C and child processes alike.
func takeStdout() (*stdio, error) {
	fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("keep stdout: %w", err)
	}
	if err := dup2(2, 1); err != nil {
		return nil, fmt.Errorf("send stdout to stderr: %w", err)
	}
	return &stdio{real: os.NewFile(uintptr(fd), "handshake"), stderr: os.Stderr}, nil
}
