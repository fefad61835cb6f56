//go:build !linux

package pgcluster

import "syscall"

// dieWithParent does nothing, because other kernels have no such signal.
func dieWithParent(*syscall.SysProcAttr) {}
