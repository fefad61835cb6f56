package client

import (
	"os"
	"path/filepath"
)

// DefaultSocket is where a host listens and a client looks if nobody says
// otherwise: $XDG_RUNTIME_DIR/tasker/tasker.sock, for root
// /run/tasker/tasker.sock, and without a runtime directory
// ~/.local/state/tasker/tasker.sock. getenv is os.Getenv.
func DefaultSocket(getenv func(string) string) string {
	return defaultSocket(getenv, os.Geteuid())
}

func defaultSocket(getenv func(string) string, uid int) string {
	const name = "tasker.sock"
	if uid == 0 {
		return filepath.Join("/run/tasker", name)
	}
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tasker", name)
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tasker", name)
	}
	return filepath.Join(getenv("HOME"), ".local/state/tasker", name)
}
