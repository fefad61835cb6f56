package client

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDefaultSocket(t *testing.T) {
	t.Parallel()
	env := func(pairs ...string) func(string) string {
		return func(key string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == key {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	require.Equal(t, "/run/tasker/tasker.sock", defaultSocket(env("XDG_RUNTIME_DIR", "/run/user/0"), 0))
	require.Equal(t, "/run/user/7/tasker/tasker.sock", defaultSocket(env("XDG_RUNTIME_DIR", "/run/user/7", "HOME", "/home/a"), 7))
	require.Equal(t, "/home/a/.local/state/tasker/tasker.sock", defaultSocket(env("XDG_RUNTIME_DIR", "relative", "HOME", "/home/a"), 7))
	require.Equal(t, "/state/tasker/tasker.sock", defaultSocket(env("XDG_STATE_HOME", "/state", "HOME", "/home/a"), 7))
}
