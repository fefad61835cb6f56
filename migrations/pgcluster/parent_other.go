//go:build !linux

package pgcluster

import "syscall"

// dieWithParent does nothing: other kernels have no such signal.
func dieWithParent(*syscall.SysProcAttr) {}
