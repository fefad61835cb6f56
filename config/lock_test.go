package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLockRoundTrip(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("0123456789abcdef", 4)
	l := NewLock("/x/plugins.lock")
	l.Set(Locked{Environment: "production", Kind: KindScaling, Name: "pid", SHA256: map[string]string{AnyPlatform: sum}})
	l.Set(Locked{Environment: "production", Kind: KindHandler, Name: "a", Version: "1.2.0", SHA256: map[string]string{"linux/arm64": sum, "linux/amd64": sum}})
	l.Set(Locked{Environment: "staging", Kind: KindHandler, Name: "a", SHA256: map[string]string{"linux/amd64": sum}})
	text := string(l.Encode())
	require.Equal(t, lockHead+`
[env.production.plugin.handler.a]
version = "1.2.0"
sha256."linux/amd64" = "`+sum+`"
sha256."linux/arm64" = "`+sum+`"

[env.production.plugin.scaling.pid]
sha256."any" = "`+sum+`"

[env.staging.plugin.handler.a]
sha256."linux/amd64" = "`+sum+`"
`, text)
	dir := writeFiles(t, map[string]string{"plugins.lock": text})
	read, err := LoadLock(LockPath(filepath.Join(dir, "plugins.toml")))
	require.NoError(t, err)
	require.Equal(t, text, string(read.Encode()))
	got, ok := read.Plugin("production", KindHandler, "a")
	require.True(t, ok)
	require.Equal(t, "1.2.0", got.Version)
	require.Equal(t, 5, got.Origin.Line)
	_, ok = read.Plugin("test", KindHandler, "a")
	require.False(t, ok)
	read.Remove("production", KindHandler, "a")
	require.Len(t, read.All(), 2)
}

func TestLockProblems(t *testing.T) {
	t.Parallel()
	_, err := LoadLock("/nowhere/plugins.lock")
	require.ErrorIs(t, err, os.ErrNotExist)
	for text, want := range map[string][]string{
		"": {"plugins.lock: format: is missing: want format = 1; write the file with 'tasker plugin lock'"},
		`format = 2
[env.production.plugin.handler.a]
sha256."linux/amd64" = "12"
sha256."linux" = 3
[env.production.plugin.handler.b]
[env.production.plugin.cook.c]
[plugin.handler.a]
`: {
			"plugins.lock:1: format: this host reads format 1",
			`plugins.lock:3: env.production.plugin.handler.a.sha256.linux/amd64: "12" is not a checksum: want 64 lower-case hexadecimal digits`,
			"plugins.lock:4: env.production.plugin.handler.a.sha256.linux: unknown; a locked plugin has version and sha256.PLATFORM, which are strings",
			"plugins.lock:5: env.production.plugin.handler.b: has no sha256",
			"plugins.lock:6: env.production.plugin.cook.c: is not a plugin of an environment: want env.ENV.plugin.KIND.NAME, with one of the kinds handler, health, scaling",
			"plugins.lock:7: plugin.handler.a: unknown; a lock has format and env.ENV.plugin.KIND.NAME",
		},
	} {
		dir := writeFiles(t, map[string]string{"plugins.lock": text})
		_, err := LoadLock(filepath.Join(dir, "plugins.lock"))
		require.Error(t, err)
		require.Equal(t, want, report(t, err, dir))
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add([]byte("format = 1\n[env.p.plugin.handler.a]\nversion = \"1\"\nsha256.any = \"" + strings.Repeat("ab", 32) + "\"\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		l, err := parseLock("/x/plugins.lock", src)
		if err != nil {
			return
		}
		for _, p := range l.All() {
			if len(p.SHA256) == 0 {
				t.Fatalf("incomplete: %+v", p)
			}
		}
	})
}
