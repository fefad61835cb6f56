package pluginwatch

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginset"
)

// engine records what it is asked for, and refuses what it should.
type engine struct {
	mu     sync.Mutex
	fail   map[string]error
	again  bool
	called chan []Wanted
}

func (e *engine) Plan(slots []Wanted) ([]Change, error) { return e.changes(slots), nil }

func (e *engine) Apply(_ context.Context, slots []Wanted, _, _ string) ([]Change, error) {
	e.called <- slots
	return e.changes(slots), nil
}

func (e *engine) changes(slots []Wanted) []Change {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []Change
	for _, s := range slots {
		c := Change{Kind: s.Kind, Name: s.Name, Action: "keep", To: s.SHA256}
		if s.Changed {
			c.Action, c.Err, c.Again = "swap", e.fail[s.Name], e.again
		}
		all = append(all, c)
	}
	return all
}

// next returns what the engine is asked for next: the slots that changed, by name,
// and the number of slots.
func (e *engine) next(t *testing.T) (changed map[string]string, all int) {
	t.Helper()
	select {
	case slots := <-e.called:
		changed = map[string]string{}
		for _, s := range slots {
			if s.Changed {
				changed[s.Name] = s.SHA256
			}
		}
		return changed, len(slots)
	case <-time.After(time.Minute):
		t.Fatal("nothing was applied")
		return nil, 0
	}
}

func (e *engine) setFail(name string, err error, again bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail, e.again = map[string]error{name: err}, again
}

type bundle struct {
	*Watcher
	engine *engine
	dir    string
}

const two = "[plugin.handler.a]\npath = \"bin/a\"\n[plugin.handler.b]\npath = \"bin/b\"\nrequired = false\n"

func setup(t *testing.T, cfg Config) *bundle {
	t.Helper()
	b := &bundle{engine: &engine{called: make(chan []Wanted, 10_000)}, dir: t.TempDir()}
	b.put(t, "plugins.toml", two, 0o600)
	b.put(t, "bin/a", "#!/bin/sh\n# 1\n", 0o700)
	b.put(t, "bin/b", "#!/bin/sh\n# 1\n", 0o700)
	if cfg.Rest == 0 {
		cfg.Rest = 20 * time.Millisecond
	}
	b.Watcher = New(cfg, pluginset.NewSelector(filepath.Join(b.dir, "plugins.toml"), "test"), b.engine, hclog.NewNullLogger())
	return b
}

// put replaces a file by renaming.
func (b *bundle) put(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(b.dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path+".tmp", []byte(text), mode))
	require.NoError(t, os.Rename(path+".tmp", path))
}

func (b *bundle) run(t *testing.T) {
	t.Helper()
	_, err := b.First()
	require.NoError(t, err)
	require.NoError(t, b.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, b.Stop(context.Background())) })
}

func (b *bundle) until(t *testing.T, what string, holds func(Status) bool) Status {
	t.Helper()
	require.Eventually(t, func() bool { return holds(b.Status()) }, time.Minute, 10*time.Millisecond, what)
	return b.Status()
}

func TestWatcher(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"by events":         {Look: time.Hour},
		"by looking anyway": {Look: 30 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, cfg)
			b.run(t)

			b.put(t, "bin/a", "#!/bin/sh\n# 2\n", 0o700)
			changed, all := b.engine.next(t)
			require.Len(t, changed, 1)
			require.Contains(t, changed, "a")
			require.Equal(t, 2, all, "what has not changed is wanted too")

			b.put(t, "plugins.toml", two+"nonsense = 1\n", 0o600)
			b.until(t, "the fault is seen", func(s Status) bool { return s.Err != nil })
			b.put(t, "bin/a", "no program", 0o700)
			b.put(t, "plugins.toml", two+"max_in_flight = 7\n", 0o600)
			changed, all = b.engine.next(t)
			require.Equal(t, 2, all, "a bad binary keeps what it had")
			require.Contains(t, changed, "b")
			require.NotContains(t, changed, "a")
			status := b.until(t, "the binary is refused", func(s Status) bool { return s.Err == nil && len(s.Refused) == 1 })
			require.ErrorContains(t, status.Refused[0].Err, "neither an ELF file nor a script")

			b.put(t, "bin/a", "#!/bin/sh\n# 3\n", 0o700)
			changed, _ = b.engine.next(t)
			require.Contains(t, changed, "a")
			b.put(t, "plugins.toml", "[plugin.handler.a]\npath = \"bin/a\"\n", 0o600)
			changed, all = b.engine.next(t)
			require.Empty(t, changed)
			require.Equal(t, 1, all, "b is gone")
			require.Empty(t, b.engine.called)
		})
	}
}

// A plugins.toml from a ConfigMap is a link through a link to a directory, which
// Kubernetes replaces; the file itself never changes.
func TestPluginsTomlOfAConfigMap(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"by events":         {Look: time.Hour},
		"by looking anyway": {Look: 30 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, cfg)
			point := func(at string) {
				require.NoError(t, os.Symlink(at, filepath.Join(b.dir, "..data_tmp")))
				require.NoError(t, os.Rename(filepath.Join(b.dir, "..data_tmp"), filepath.Join(b.dir, "..data")))
			}
			b.put(t, "..1/plugins.toml", two, 0o600)
			b.put(t, "..2/plugins.toml", two+"max_in_flight = 7\n", 0o600)
			require.NoError(t, os.Remove(filepath.Join(b.dir, "plugins.toml")))
			require.NoError(t, os.Symlink("..data/plugins.toml", filepath.Join(b.dir, "plugins.toml")))
			point("..1")
			b.run(t)
			b.put(t, "bin/a", "#!/bin/sh\n# 2\n", 0o700)
			changed, _ := b.engine.next(t)
			require.Contains(t, changed, "a") // and the first look is over

			point("..2")
			changed, _ = b.engine.next(t)
			require.Len(t, changed, 1)
			require.Contains(t, changed, "b")
		})
	}
}

// A plugin that does not start is not tried again and again, unless the reason may
// go away. An operator's call tries everything.
func TestWhatIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{Look: 30 * time.Millisecond})
	b.engine.setFail("a", errors.New("it does not start"), false)
	b.run(t)
	b.put(t, "bin/a", "#!/bin/sh\n# 2\n", 0o700)
	b.engine.next(t)
	require.ErrorContains(t, b.until(t, "it has failed", func(s Status) bool { return len(s.Failed) == 1 }).Failed[0].Err, "it does not start")
	plan, err := b.Plan()
	require.NoError(t, err)
	require.Contains(t, plan[0].Reason, "it was tried and failed: it does not start")
	require.NotContains(t, plan[1].Reason, "tried")
	b.put(t, "bin/b", "#!/bin/sh\n# 2\n", 0o700)
	changed, _ := b.engine.next(t)
	require.NotContains(t, changed, "a")
	require.Len(t, b.Status().Failed, 1, "its failure is still shown")

	_, err = b.Apply(t.Context(), "somebody", "to see")
	require.NoError(t, err)
	changed, _ = b.engine.next(t)
	require.Len(t, changed, 2)

	b.engine.setFail("a", errors.New("it still does not start"), false)
	b.put(t, "bin/a", "no program", 0o700)
	status := b.until(t, "the binary is refused", func(s Status) bool { return len(s.Refused) == 1 })
	require.Empty(t, status.Failed, "the binary that failed has been replaced")
	b.put(t, "bin/a", "#!/bin/sh\n# 2\n", 0o700)
	status = b.until(t, "the one that failed is back", func(s Status) bool { return len(s.Refused) == 0 })
	require.ErrorContains(t, status.Failed[0].Err, "it does not start", "and is not tried again")

	b.engine.setFail("a", errors.New("the database is away"), true)
	b.put(t, "bin/a", "#!/bin/sh\n# 3\n", 0o700)
	b.engine.next(t)
	b.engine.next(t)
	b.engine.setFail("", nil, false)
	b.until(t, "it works", func(s Status) bool { return len(s.Failed) == 0 })
}

func TestFirst(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	specs, err := b.First()
	require.NoError(t, err)
	require.Len(t, specs, 2)
	require.Len(t, specs[0].SHA256, 64, "what was checked is what runs")
	require.NoError(t, os.Remove(filepath.Join(b.dir, "bin/b")))
	b = &bundle{Watcher: New(Config{}, pluginset.NewSelector(filepath.Join(b.dir, "plugins.toml"), "test"), b.engine, hclog.NewNullLogger()), engine: b.engine, dir: b.dir}
	specs, err = b.First()
	require.NoError(t, err, "it is not required")
	require.Len(t, specs, 1)
	require.Len(t, b.Status().Refused, 1)
	require.NoError(t, os.Remove(filepath.Join(b.dir, "bin/a")))
	_, err = b.First()
	require.ErrorContains(t, err, "start plugin a: ")
	require.NoError(t, os.Remove(filepath.Join(b.dir, "plugins.toml")))
	specs, err = b.First()
	require.NoError(t, err, "a host without plugins runs")
	require.Empty(t, specs)
	_, err = b.Check("handler", "a", "/bin/true")
	require.Error(t, err)
	spec, ok := b.Spec("handler", "a")
	require.True(t, ok)
	require.Equal(t, 1, spec.Origin.Line)
}

// A file that was renamed into place is complete: there is nothing to wait for.
func TestRenamedFilesNeedNoRest(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{Rest: time.Hour, Look: time.Hour})
	b.run(t)
	b.put(t, "bin/a", "#!/bin/sh\n# 2\n", 0o700)
	changed, _ := b.engine.next(t)
	require.Contains(t, changed, "a")
}

// A file that is open for writing may not be complete, whoever writes it.
func TestWritersAreSeen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "plugin")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.False(t, unwritten(path))
	require.False(t, closed([]there{{"/nowhere", "-"}, {path, "1"}}))
	writer := exec.CommandContext(t.Context(), "sh", "-c", "echo ready; read line")
	writer.ExtraFiles = []*os.File{f}
	in, err := writer.StdinPipe()
	require.NoError(t, err)
	out, err := writer.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, writer.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.False(t, unwritten(path), "another process writes it")
	require.NoError(t, in.Close())
	_ = writer.Wait() // it read nothing
	require.Eventually(t, func() bool { return unwritten(path) }, time.Minute, time.Millisecond)
	require.True(t, closed([]there{{"/nowhere", "-"}, {path, "1"}}))
	require.False(t, unwritten("/nowhere"))
}

// Planning for a new text of plugins.toml changes nothing, not even what is known
// about the existing files.
func TestPlanOfAText(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{Look: time.Hour})
	b.run(t)
	b.put(t, "bin/c", "#!/bin/sh\n# 3\n", 0o700)
	_, err := b.PlanText([]byte(two + "nonsense = 1\n"))
	require.ErrorContains(t, err, "plugins.toml:6: plugin.handler.b.nonsense: unknown key")
	changes, err := b.PlanText([]byte("[plugin.handler.a]\npath = \"bin/nowhere\"\n[plugin.handler.c]\npath = \"bin/c\"\n"))
	require.NoError(t, err)
	require.Len(t, changes, 2)
	require.Equal(t, "c", changes[0].Name)
	require.Equal(t, "swap", changes[0].Action)
	require.Equal(t, "a", changes[1].Name, "once")
	require.Equal(t, "refuse", changes[1].Action)
	require.ErrorContains(t, changes[1].Err, "no such file")
	require.NoError(t, b.Status().Err)
	require.Empty(t, b.Status().Refused)
	known, ok := b.Spec("handler", "a")
	require.True(t, ok)
	require.Equal(t, filepath.Join(b.dir, "bin/a"), known.Path)
	_, err = b.Check("handler", "c", filepath.Join(b.dir, "bin/c"))
	require.ErrorIs(t, err, ErrNotNamed)
	_, ok = b.Spec("handler", "c")
	require.False(t, ok)
	require.Empty(t, b.engine.called)
}
