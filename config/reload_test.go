package config

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAdoptTakesWhatReloadsAndNamesTheRest(t *testing.T) {
	t.Parallel()
	old, err := load(t, Options{})
	require.NoError(t, err)
	next, err := load(t, Options{Overrides: map[string]string{
		"system.log_level": "debug", "engine.max_in_flight": "7", "database.max_connections": "12", "database.url": "postgres:///other",
	}})
	require.NoError(t, err)
	change, err := old.Adopt(next)
	require.NoError(t, err)
	require.Equal(t, []string{"engine.max_in_flight", "system.log_level"}, change.Applied)
	require.Equal(t, []string{"database.url", "database.max_connections"}, change.Restart)
	require.Equal(t, 7, change.Config.Engine.MaxInFlight)
	require.Equal(t, 10, change.Config.Database.MaxConnections)
	require.True(t, change.Config.Database.URL.IsZero())
	origin, _ := change.Config.Origin("engine.max_in_flight")
	require.Equal(t, "command line", origin.String())
	require.Equal(t, 4000, old.Engine.MaxInFlight, "the old configuration stays as it is")

	same, err := old.Adopt(old)
	require.NoError(t, err)
	require.Empty(t, same.Applied)
	require.Empty(t, same.Restart)
}

// A sweep interval that needs a longer lease is refused if the lease waits for a restart.
func TestAdoptRefusesWhatContradictsValuesInForce(t *testing.T) {
	t.Parallel()
	old, err := load(t, Options{})
	require.NoError(t, err)
	next, err := load(t, Options{Overrides: map[string]string{"orchestration.lease": "60s", "orchestration.sweep_interval": "10s"}})
	require.NoError(t, err)
	_, err = old.Adopt(next)
	require.EqualError(t, err, "the new values conflict with values that only a restart changes: configuration: "+
		"command line: orchestration.sweep_interval: 10s must be at most a sixth of orchestration.lease (30s / 6 = 5s)")
}

func TestEveryKeyThatReloadsIsTakenOver(t *testing.T) {
	t.Parallel()
	old, err := load(t, Options{})
	require.NoError(t, err)
	for key, leaf := range schemaOf(reflect.TypeFor[Config]()) {
		next := *old
		field := reflect.ValueOf(&next).Elem().FieldByIndex(leaf.index)
		switch v := field.Interface().(type) {
		case time.Duration:
			field.SetInt(int64(v) + 1)
		case int:
			field.SetInt(int64(v) + 1)
		case float64:
			field.SetFloat(v/2 + 0.26)
		case Bytes:
			field.SetInt(2 * int64(v))
		case bool:
			field.SetBool(!v)
		case string:
			if len(leaf.limits.oneof) > 0 {
				field.SetString(leaf.limits.oneof[0])
			} else {
				field.SetString(v + "x")
			}
		case Secret:
			field.Set(reflect.ValueOf(NewSecret("x")))
		}
		change, err := old.Adopt(&next)
		if err != nil { // one more conflicts with another key, so it was checked
			require.True(t, leaf.limits.reload, "%s: %v", key, err)
			continue
		}
		if leaf.limits.reload {
			require.Equal(t, []string{key}, change.Applied)
			require.Empty(t, change.Restart)
		} else {
			require.Equal(t, []string{key}, change.Restart)
			require.Empty(t, change.Applied)
		}
	}
}

func TestWatchSeesFilesThatAreWrittenReplacedAndAdded(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, map[string]string{"a.toml": "# 1"})
	calls := make(chan struct{}, 16)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Watch(ctx, dir, "staging", func() { calls <- struct{}{} }) }()
	expect := func(what string) {
		t.Helper()
		select {
		case <-calls:
		case <-time.After(time.Minute):
			t.Fatal("not seen: " + what)
		}
	}
	write := func(name, text string) { // all texts have the same length, so that a file is never half old, however slow this is
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE, 0o600)
		require.NoError(t, err)
		_, err = f.WriteString(text)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	expect("the beginning")
	write("a.toml", "# 2")
	expect("a file that is written")
	write("new", "# 3")
	require.NoError(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "a.toml")))
	expect("a file that is replaced")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "environments", "staging"), 0o750))
	write("environments/staging/b.toml", "# 4")
	expect("a file in a new folder of the environment")

	// Other files, and writes that change nothing, are not a change.
	write("plugins.toml", "# 5")
	write("readme.md", "# 6")
	write("a.toml", "# 3")
	write("environments/staging/b.toml", "# 7")
	expect("the last of several")
	require.Empty(t, calls, "one change, one call")
	cancel()
	require.NoError(t, <-ended)
}
