package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/plugins/test/chaostest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// drop puts a binary in place as people are told to: beside it, then by renaming.
func (s *site) drop(t *testing.T, from, to string) string {
	t.Helper()
	path := filepath.Join(s.dir, to)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	src, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path+".tmp", src, 0o700))
	require.NoError(t, os.Rename(path+".tmp", path))
	return path
}

// edit replaces the site's plugins.toml as an editor does.
func (s *site) edit(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(s.dir, "plugins.toml")
	require.NoError(t, os.WriteFile(path+"~", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+"~", path))
}

func (h *host) plugin(t *testing.T, name string) readmodel.PluginDetail {
	t.Helper()
	d, err := h.Client.Plugin(t.Context(), "handler", name)
	require.NoError(t, err)
	return d
}

// becomes waits until a plugin is as it should be.
func (h *host) becomes(t *testing.T, what string, is func(readmodel.PluginDetail) bool) readmodel.PluginDetail {
	t.Helper()
	var d readmodel.PluginDetail
	eventually(t, patience, what, func() bool {
		d = h.plugin(t, "arithmetic")
		return is(d)
	})
	return d
}

// underLoad submits tasks until it is told to end, and then looks at all.
func underLoad(t *testing.T, h *host) (end func() int) {
	t.Helper()
	stop := feed(t, h, 4, client.Submission{Namespace: "linear_workflow", Name: "mathematical_sequence", Context: json.RawMessage(`{"even_number": 2}`)})
	return func() int {
		tasks := stop()
		for _, id := range tasks {
			require.Equal(t, vocab.TaskComplete, settled(t, h, id).State)
			steps, err := h.Steps(t.Context(), id)
			require.NoError(t, err)
			for _, s := range steps {
				require.Equal(t, 1, s.Attempts, "no step is repeated, and none is charged for a swap")
			}
		}
		return len(tasks)
	}
}

// feed submits tasks, each when one before has ended, until it is told to stop;
// it returns all of them.
func feed(t *testing.T, h *host, feeders int, s client.Submission) (stop func() []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var tasks []string
	var load sync.WaitGroup
	for range feeders {
		load.Go(func() {
			pace := time.NewTicker(50 * time.Millisecond)
			defer pace.Stop()
			for ctx.Err() == nil {
				<-pace.C
				task, _, err := h.Submit(ctx, s)
				if err != nil {
					continue // the end
				}
				mu.Lock()
				tasks = append(tasks, task.UUID)
				mu.Unlock()
				_, _ = h.Watch(ctx, task.UUID, func(readmodel.Snapshot) {}) // looked at below
			}
		})
	}
	return func() []string {
		cancel()
		load.Wait()
		return tasks
	}
}

// TestPluginsTakeOverWhileTasksRun: a binary put in place by renaming, an edit of
// plugins.toml and a command of an operator take over without a restart, a
// broken file changes nothing, and no task notices any of it.
func TestPluginsTakeOverWhileTasksRun(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.DSN(t))
	path := s.drop(t, filepath.Join(built, "arithmetic"), "bin/arithmetic")
	table := pluginTable("arithmetic", path, "")
	s.plugins(t, table)
	h := s.up(t)
	applyExample(t, h, "arithmetic/templates/linear.yaml")
	first := h.plugin(t, "arithmetic")
	require.Equal(t, "1.0.0", first.Version)
	end := underLoad(t, h)

	s.drop(t, filepath.Join(built, "next", "arithmetic"), "bin/arithmetic")
	second := h.becomes(t, "the new binary serves", func(d readmodel.PluginDetail) bool { return d.Version == "1.1.0" })
	require.Greater(t, second.Generation, first.Generation)
	require.NotEqual(t, first.Artifact, second.Artifact)

	// An operator takes it back, and the host does not fight the operator.
	r := s.tasker(t, "plugin", "rollback", "arithmetic", "--reason", "the digits look odd", "--json")
	require.Zero(t, r.code, r.err)
	var back readmodel.PluginDetail
	require.NoError(t, json.Unmarshal([]byte(r.out), &back))
	require.Equal(t, first.Artifact, back.Artifact)
	require.Len(t, back.Quarantined, 1)
	require.Equal(t, second.Artifact, back.Quarantined[0].Artifact)
	require.Regexp(t, "^operator:local:.+", back.Quarantined[0].Actor, "the user of the socket")
	plan := s.tasker(t, "plugin", "plan")
	require.Zero(t, plan.code, plan.err)
	require.Contains(t, plan.out, "refuse")
	require.Contains(t, plan.out, "the digits look odd")
	require.Equal(t, 1, s.tasker(t, "plugin", "apply").code)
	require.Equal(t, "1.0.0", h.plugin(t, "arithmetic").Version)
	require.Zero(t, s.tasker(t, "plugin", "release", "arithmetic", "--digest", second.Artifact[:12]).code)
	r = s.tasker(t, "plugin", "apply")
	require.Zero(t, r.code, r.out+r.err)
	third := h.plugin(t, "arithmetic")
	require.Equal(t, "1.1.0", third.Version)

	// A broken plugins.toml: the last good one stays, and whoever looks is told.
	s.edit(t, table+"max_in_fligth = 7\n")
	h.becomes(t, "the fault is shown", func(d readmodel.PluginDetail) bool {
		return d.Selected != nil && d.Selected.Error != ""
	})
	r = s.tasker(t, "plugin", "plan")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "plugins.toml:4")
	require.Contains(t, r.err, "did you mean max_in_flight?")
	require.Equal(t, third.Generation, h.plugin(t, "arithmetic").Generation)
	require.Contains(t, s.tasker(t, "plugin", "list").out, "did you mean max_in_flight?")
	report := s.tasker(t, "doctor")
	require.Contains(t, report.out, "did you mean max_in_flight?")

	// What an edit would do is said before it is made.
	next := filepath.Join(s.dir, "next.toml")
	require.NoError(t, os.WriteFile(next, []byte(table+"max_in_flight = 7\n"), 0o600))
	r = s.tasker(t, "plugin", "plan", "--file", next)
	require.Zero(t, r.code, r.err)
	require.Regexp(t, `handler/arithmetic +reconfigure .*other settings: max_in_flight`, r.out)
	require.Equal(t, third.Generation, h.plugin(t, "arithmetic").Generation)

	s.edit(t, table+"max_in_flight = 7\n")
	fourth := h.becomes(t, "the settings are in force", func(d readmodel.PluginDetail) bool { return d.Generation > third.Generation && d.Selected.Error == "" })
	require.Equal(t, third.Artifact, fourth.Artifact)

	// A swap by hand, of a binary that lies elsewhere.
	elsewhere := s.drop(t, filepath.Join(built, "arithmetic"), "elsewhere")
	require.Zero(t, s.tasker(t, "plugin", "swap", "arithmetic", "--artifact", elsewhere).code)
	require.Equal(t, "1.0.0", h.plugin(t, "arithmetic").Version)
	explained := s.tasker(t, "plugin", "explain", "arithmetic")
	require.Regexp(t, `(?m)^taken from +`+regexp.QuoteMeta(elsewhere)+`$`, explained.out)
	require.Regexp(t, `(?m)^selected +`+regexp.QuoteMeta(path)+`, `, explained.out)

	// What is no plugin is refused, and what serves stays.
	r = s.tasker(t, "plugin", "swap", "arithmetic", "--artifact", "/bin/true")
	require.Equal(t, 6, r.code, r.err)
	require.Equal(t, "1.0.0", h.plugin(t, "arithmetic").Version)
	require.Equal(t, 4, s.tasker(t, "plugin", "explain", "nobody").code)

	history := s.tasker(t, "plugin", "history", "arithmetic", "--limit", "200")
	require.Zero(t, history.code, history.err)
	require.Contains(t, history.out, "the digits look odd")
	require.Contains(t, history.out, "operator:local")

	require.Positive(t, end())
	h.stop(t)
	require.Empty(t, processesOf(t, s.dir))
}

// TestBadCanary: a binary put in place that fails three calls of ten, or is
// slower by far, gets its first share of the tasks and no more. The host takes it
// back by itself, says why, and every task comes to its end: only the attempts
// that the handler itself failed are charged.
func TestBadCanary(t *testing.T) {
	t.Parallel()
	for mode, bad := range map[string]struct {
		share, feeders int
		reason         string
		fails          bool
	}{
		"errs":  {share: 30, feeders: 4, reason: `% of its \d+ calls fail`, fails: true},
		"slows": {share: 10, feeders: 32, reason: `^chaos\.echo: 99 % of its calls take up to \S+; before, they took up to \S+$`},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, pgtest.DSN(t))
			path := s.drop(t, filepath.Join(built, "chaos"), "bin/chaos")
			// A share lasts an hour: what ends it sooner is the comparison.
			s.plugins(t, pluginTable("chaos", path, fmt.Sprintf(`rollout = { strategy = "canary", steps = [%d, 60], hold = "1h" }`, bad.share)))
			h := s.up(t)
			applyTemplate(t, h, oneStep("echo", "chaos.echo", "    retry: {max_attempts: 20, backoff: none}\n"))
			first := h.plugin(t, "chaos")
			stop := feed(t, h, bad.feeders, client.Submission{Namespace: "e2e", Name: "echo", Context: json.RawMessage(`{"a": 1}`)})

			s.drop(t, chaostest.As(t, filepath.Join(built, "chaos"), mode), "bin/chaos")
			var d readmodel.PluginDetail
			eventually(t, patience, "the canary is taken back", func() bool {
				d = h.plugin(t, "chaos")
				return len(d.Quarantined) == 1
			})
			tasks := stop()
			require.Equal(t, first.Generation, d.Generation)
			require.Equal(t, first.PID, d.PID, "what served before never stopped")
			require.Zero(t, d.Next)
			require.Regexp(t, bad.reason, d.Quarantined[0].Reason)
			canary := requireOneShare(t, s, first, d.Quarantined[0])
			failed := requireOwnFaults(t, h, tasks, first.Generation, canary)
			require.Equal(t, bad.fails, failed > 0)
			h.stop(t)
			require.Empty(t, processesOf(t, s.dir))
		})
	}
}

// requireOneShare requires that a binary was a canary once, until the host took
// it back, and returns its generation: the first look with enough calls to judge
// was the last.
func requireOneShare(t *testing.T, s *site, first readmodel.PluginDetail, bad readmodel.PluginQuarantine) (canary int64) {
	t.Helper()
	require.NotEqual(t, first.Artifact, bad.Artifact)
	require.Equal(t, "host", bad.Actor)
	explained := s.tasker(t, "plugin", "explain", "chaos")
	require.Zero(t, explained.code, explained.err)
	require.Contains(t, explained.out, "quarantined "+bad.Artifact[:12])
	require.Contains(t, explained.out, bad.Reason)

	var history readmodel.PluginHistory
	eventually(t, patience, "the account has its end", func() bool {
		r := s.tasker(t, "plugin", "history", "chaos", "--limit", "1000", "--json")
		require.Zero(t, r.code, r.err)
		history = readmodel.PluginHistory{}
		require.NoError(t, json.Unmarshal([]byte(r.out), &history))
		return slices.ContainsFunc(history.Items, func(e readmodel.PluginEvent) bool { return e.From == "canary" })
	})
	shares := 0
	for _, e := range history.Items {
		if e.Artifact != bad.Artifact {
			continue
		}
		require.NotEqual(t, "active", e.To)
		if e.To == "canary" {
			canary, shares = e.Generation, shares+1
		}
		if e.From == "canary" {
			require.Equal(t, "draining", e.To)
			require.Equal(t, "host", e.Actor)
			require.Equal(t, bad.Reason, e.Reason)
		}
	}
	require.Equal(t, 1, shares)
	return canary
}

// requireOwnFaults requires that tasks of one step are complete, most of them by
// the first generation, and that nothing was charged to them but what the canary's
// handler failed. It returns how much that was.
func requireOwnFaults(t *testing.T, h *host, tasks []string, first, canary int64) (failed int) {
	t.Helper()
	served := map[int64]int{}
	for _, id := range tasks {
		require.Equal(t, vocab.TaskComplete, settled(t, h, id).State)
		steps, err := h.Steps(t.Context(), id)
		require.NoError(t, err)
		require.Len(t, steps, 1)
		require.Equal(t, steps[0].Attempts, steps[0].Claims, "no step is handed back for the rollback")
		history, err := h.History(t.Context(), id)
		require.NoError(t, err)
		charged := 0
		for _, tr := range history {
			switch {
			case tr.PluginGeneration == 0:
			case tr.To == string(vocab.StepComplete):
				served[tr.PluginGeneration]++
			default:
				charged++
				require.Equal(t, canary, tr.PluginGeneration, "%+v", tr)
				require.Contains(t, string(tr.Metadata), "ECHO_LOST", "what the handler said")
			}
		}
		require.Equal(t, steps[0].Attempts-1, charged)
		failed += charged
	}
	require.Positive(t, served[canary], "it did some")
	require.Greater(t, served[first], served[canary], "most were never its")
	require.Equal(t, len(tasks), served[first]+served[canary])
	return failed
}

// TestLockedPlugins: an environment that demands a lock runs what is locked and
// nothing else, at the start and while it runs.
func TestLockedPlugins(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.DSN(t))
	path := s.drop(t, filepath.Join(built, "arithmetic"), "bin/arithmetic")
	text := pluginTable("arithmetic", path, "") + "[env.test.lock]\nrequired = true\n"
	s.plugins(t, text)
	h := s.start(t)
	require.Equal(t, 1, h.await(t))
	require.Contains(t, h.log.String(), "tasker plugin lock --env test")

	lock := []string{"plugin", "lock", "--env", "test", "--plugins", filepath.Join(s.dir, "plugins.toml")}
	require.Zero(t, s.tasker(t, lock...).code)
	h = s.up(t)
	first := h.plugin(t, "arithmetic")

	s.drop(t, filepath.Join(built, "next", "arithmetic"), "bin/arithmetic")
	refused := h.becomes(t, "the binary is refused", func(d readmodel.PluginDetail) bool { return d.Selected.Error != "" })
	require.Equal(t, first.Generation, refused.Generation)
	require.Contains(t, refused.Selected.Error, fmt.Sprintf("locked for test is %s", first.Artifact))
	list := s.tasker(t, "plugin", "list")
	require.Contains(t, list.out, "checksum mismatch")
	require.Equal(t, 6, s.tasker(t, "plugin", "swap", "arithmetic", "--artifact", path).code, "an operator is held to the lock too")

	require.Zero(t, s.tasker(t, lock...).code)
	next := h.becomes(t, "the locked binary serves", func(d readmodel.PluginDetail) bool { return d.Version == "1.1.0" })
	require.Empty(t, next.Selected.Error)
	h.stop(t)
}
