package pluginset

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/artifact"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// foreign writes a file for another machine, with the given text.
func (p place) foreign(t *testing.T, name, text string) string {
	t.Helper()
	elf := make([]byte, 64)
	copy(elf, "\x7fELF\x02\x01\x01")
	elf[18] = 183 // arm64
	if artifact.ThisPlatform == "linux/arm64" {
		elf[18] = 62
	}
	return p.write(t, name, string(elf)+text, 0o700)
}

func TestLockKeepsWhatIsStillTrue(t *testing.T) {
	t.Parallel()
	p := newPlace(t, two+"[env.staging.plugin.handler.b]\npath = \"bin/a\"\n[env.staging.lock]\nrequired = true\n")
	p.script(t, "bin/a", "1")
	p.script(t, "bin/b", "1")
	arm := p.foreign(t, "arm/a", "1")
	report, err := Lock(t.Context(), LockOptions{Plugins: p.toml(), Artifacts: map[string][]string{"handler/a": {arm}}})
	require.NoError(t, err)
	require.True(t, report.Changed)
	require.Equal(t, []string{"production", "production", "staging", "staging"}, environmentsOf(report), "those that require a lock")
	lock, err := config.LoadLock(report.Path)
	require.NoError(t, err)
	first, _ := lock.Plugin("production", "handler", "a")
	require.Len(t, first.SHA256, 2)
	text, err := os.ReadFile(report.Path)
	require.NoError(t, err)

	report, err = Lock(t.Context(), LockOptions{Plugins: p.toml(), Environments: []string{"production"}})
	require.NoError(t, err)
	require.False(t, report.Changed, "the same files, the same lock; other platforms and environments stay")

	p.script(t, "bin/a", "2")
	report, err = Lock(t.Context(), LockOptions{Plugins: p.toml(), Environments: []string{"production"}, Check: true})
	require.NoError(t, err)
	require.True(t, report.Changed)
	require.Equal(t, "changed", report.Plugins[0].Change)
	require.Equal(t, "unchanged", report.Plugins[1].Change)
	require.Len(t, report.Dropped, 1, "the other platform's belongs to the previous binary")
	unchanged, err := os.ReadFile(report.Path)
	require.NoError(t, err)
	require.Equal(t, string(text), string(unchanged), "a check writes nothing")

	p.write(t, "plugins.toml", "[plugin.handler.b]\npath = \"bin/b\"\n", 0o600)
	report, err = Lock(t.Context(), LockOptions{Plugins: p.toml(), Environments: []string{"production"}})
	require.NoError(t, err)
	require.Equal(t, "removed", report.Plugins[1].Change)
	lock, err = config.LoadLock(report.Path)
	require.NoError(t, err)
	require.Len(t, lock.All(), 3)
}

func environmentsOf(r readmodel.PluginLock) []string {
	var names []string
	for _, p := range r.Plugins {
		names = append(names, p.Environment)
	}
	return names
}

func TestLockFaults(t *testing.T) {
	t.Parallel()
	p := newPlace(t, two)
	p.script(t, "bin/a", "1")
	lock := func(o LockOptions) error {
		o.Plugins = p.toml()
		_, err := Lock(t.Context(), o)
		return err
	}
	require.ErrorContains(t, lock(LockOptions{}), "bin/b: no such file")
	p.script(t, "bin/b", "1")
	require.ErrorContains(t, lock(LockOptions{Artifacts: map[string][]string{"handler/c": {"x"}}}), "plugins.toml has no plugin handler/c in production")
	two := p.script(t, "bin/c", "2")
	require.ErrorContains(t, lock(LockOptions{Artifacts: map[string][]string{"handler/a": {two}}}), "a second file for handler/a on any")
	require.NoFileExists(t, filepath.Join(p.dir, "plugins.lock"))
	p.write(t, "plugins.toml", "[env.production.lock]\nrequired = false\n", 0o600)
	require.ErrorContains(t, lock(LockOptions{}), "no environment requires a lock")
}

func TestCompare(t *testing.T) {
	t.Parallel()
	p := newPlace(t, two+`options = { unit = "m" }
[env.staging.plugin.handler.a]
path = "bin/b"
max_in_flight = 7
[env.staging.plugin.handler.b.options]
unit = "km"
token = { from_env = "TOKEN" }
[env.staging.plugin.handler.d]
path = "bin/d"
`)
	a, b := p.script(t, "bin/a", "1"), p.script(t, "bin/b", "1 ")
	p.lock(t, "production")
	diff, err := Compare(p.toml(), []string{"staging", "production"})
	require.NoError(t, err)
	sum := func(path string) string {
		f, err := artifact.Inspect(path, nil)
		require.NoError(t, err)
		return f.SHA256
	}
	require.Equal(t, []readmodel.PluginDifference{
		{Slot: "", Field: "lock.required", Values: []string{"false", "true"}},
		{Slot: "handler/a", Field: "max_in_flight", Values: []string{"7", "500"}},
		{Slot: "handler/a", Field: "path", Values: []string{b, a}},
		{Slot: "handler/a", Field: "sha256", Values: []string{sum(b), sum(a)}},
		{Slot: "handler/a", Field: "sha256 (locked)", Values: []string{"", sum(a)}},
		{Slot: "handler/b", Field: "options.token.from_env", Values: []string{`"TOKEN"`, ""}},
		{Slot: "handler/b", Field: "options.unit", Values: []string{`"km"`, `"m"`}},
		{Slot: "handler/b", Field: "sha256 (locked)", Values: []string{"", sum(b)}},
		{Slot: "handler/d", Field: "plugin", Values: []string{"yes", ""}},
	}, diff.Differences)
	diff, err = Compare(p.toml(), []string{"test", "development"})
	require.NoError(t, err)
	require.Empty(t, diff.Differences)
}
