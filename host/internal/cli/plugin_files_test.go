package cli_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// place writes a plugins.toml with scripts for plugins, and returns a function
// that runs commands there and hides what differs from run to run.
func place(t *testing.T, b *bundle, toml string) (dir string, run func(args ...string) result) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plugins.toml"), []byte(toml), 0o600))
	for _, name := range []string{"a", "b"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n# "+name+"\n"), 0o700))
	}
	keys := regexp.MustCompile(`RW[A-Za-z0-9+/]{54}|\b[0-9A-F]{16}\b`)
	return dir, func(args ...string) result {
		r := b.run(t, args...)
		clean := func(s string) string { return keys.ReplaceAllString(strings.ReplaceAll(s, dir, "DIR"), "KEY") }
		r.out, r.err = clean(r.out), clean(r.err)
		return r
	}
}

const twoPlugins = `[plugin.handler.a]
path = "a"
[plugin.handler.b]
path = "b"
options = { unit = "m", token = { from_env = "TOKEN" } }
[env.staging.plugin.handler.b]
max_in_flight = 7
options = { token = { from_env = "STAGING_TOKEN" } }
`

func TestLockAndDiff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	dir, run := place(t, b, twoPlugins)
	plugins := filepath.Join(dir, "plugins.toml")
	b.golden(t, "plugin_lock", run("plugin", "lock", "--plugins", plugins))
	b.golden(t, "plugin_lock_again", run("plugin", "lock", "--env", "production", "--plugins", plugins))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b"), []byte("#!/bin/sh\n"), 0o700))
	r := run("plugin", "lock", "--check", "--plugins", plugins)
	require.Equal(t, 1, r.code)
	b.golden(t, "plugin_lock_check", r)
	b.golden(t, "plugin_lock_json", run("plugin", "lock", "--env", "staging,production", "--plugins", plugins, "--json"))
	r = run("plugin", "diff", "--env", "staging,production", "--plugins", plugins)
	require.Zero(t, r.code)
	b.golden(t, "plugin_diff", r)
	r = run("plugin", "diff", "--env", "test,development", "--plugins", plugins)
	require.Zero(t, r.code)
	b.golden(t, "plugin_diff_none", r)
	require.Equal(t, 2, run("plugin", "diff", "--env", "staging", "--plugins", plugins).code)
	require.Equal(t, 2, run("plugin", "lock", "--artifact", "x", "--plugins", plugins).code)
	for _, verb := range []string{"lock", "diff"} {
		r = run("plugin", verb, "--env", "staging,prodution", "--plugins", plugins)
		require.Equal(t, 2, r.code)
		require.Contains(t, r.err, `no environment "prodution" in DIR/plugins.toml or the configuration; want one of development, production, staging, test`)
	}

	require.NoError(t, os.WriteFile(plugins, []byte("[plugin.handler.a]\npth = 3\n[lock]\nneeded = true\n"), 0o600))
	r = run("plugin", "lock", "--plugins", plugins)
	require.Equal(t, 1, r.code)
	b.golden(t, "plugin_lock_bad_toml", r)
}

func TestSignAndVerify(t *testing.T) {
	t.Parallel()
	b := setup(t)
	dir, run := place(t, b, twoPlugins)
	key, file := filepath.Join(dir, "key"), filepath.Join(dir, "a")
	b.golden(t, "plugin_keygen", run("plugin", "keygen", key))
	b.golden(t, "plugin_sign", run("plugin", "sign", file, "--key", key))
	b.golden(t, "plugin_verify", run("plugin", "verify", file, "--key", key+".pub"))
	b.golden(t, "plugin_verify_json", run("plugin", "verify", file, "--key", key+".pub", "--json"))
	r := run("plugin", "verify", file, "--plugins", filepath.Join(dir, "plugins.toml"), "--env", "production")
	require.Equal(t, 2, r.code)
	b.golden(t, "plugin_verify_no_keys", r)
	require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n# other\n"), 0o700))
	r = run("plugin", "verify", file, "--key", key+".pub")
	require.Equal(t, 1, r.code)
	b.golden(t, "plugin_verify_bad", r)
}
