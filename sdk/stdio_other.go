//go:build !unix

package sdk

import "os"

// takeStdout sends what Go code prints to stderr; file descriptors stay as they
// are.
func takeStdout() (*stdio, error) {
	s := &stdio{real: os.Stdout, stderr: os.Stderr}
	os.Stdout = os.Stderr
	return s, nil
}
