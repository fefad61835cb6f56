package sdk

import "golang.org/x/sys/unix"

// dup2 by another name: some Linux ports have dup3 only.
func dup2(from, to int) error { return unix.Dup3(from, to, 0) }
