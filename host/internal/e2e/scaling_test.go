package e2e_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

const shopPool = "step_execution.linear_workflow"

func scalingTable(name, path string) string {
	return fmt.Sprintf("[plugin.scaling.%s]\npath = %q\nstart_timeout = \"2m\"\n", name, path)
}

func (h *host) pool(t *testing.T) readmodel.Pool {
	t.Helper()
	p, err := h.Client.Pool(t.Context(), shopPool)
	require.NoError(t, err)
	return p
}

// sized waits until a pool has a size, by the decision of a plugin.
func (h *host) sized(t *testing.T, n int) readmodel.Pool {
	t.Helper()
	var p readmodel.Pool
	eventually(t, patience, fmt.Sprintf("the pool has %d executors", n), func() bool {
		p = h.pool(t)
		return p.Target == n && p.Size == n && p.Decision != nil && p.Decision.To == n && strings.HasPrefix(p.Decision.By, "plugin ")
	})
	return p
}

// TestANewScalingBinaryTakesOver: a pool whose algorithm nobody serves holds; a
// binary that is dropped in decides from then on; another one that is renamed over
// it takes over while tasks run, and whoever looks is told which decided what.
func TestANewScalingBinaryTakesOver(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.DSN(t), "TASKER__EXECUTOR_POOLS__STEP_EXECUTION__ALGORITHM=sway", "TASKER__EXECUTOR_POOLS__STEP_EXECUTION__MIN=2")
	handlers := pluginTable("arithmetic", filepath.Join(built, "arithmetic"), "")
	s.plugins(t, handlers)
	h := s.up(t)
	applyExample(t, h, "arithmetic/templates/linear.yaml")
	end := underLoad(t, h)
	eventually(t, patience, "the pool is held", func() bool {
		d := h.pool(t).Decision
		return d != nil && strings.Contains(d.Reason, `held: the algorithm failed: no plugin serves "sway" and no built-in algorithm has that name`)
	})
	require.Equal(t, 2, h.pool(t).Size)

	path := s.drop(t, filepath.Join(built, "sway"), "bin/sway")
	s.edit(t, handlers+scalingTable("sway", path))
	first := h.sized(t, 5)
	require.Equal(t, "release 1.0.0 is for 5", first.Decision.Reason)

	s.drop(t, filepath.Join(built, "next", "sway"), "bin/sway")
	second := h.sized(t, 11)
	require.Equal(t, "release 2.0.0 is for 11", second.Decision.Reason)
	require.NotEqual(t, first.Decision.By, second.Decision.By, "another generation")

	list := s.tasker(t, "pool", "list")
	require.Zero(t, list.code, list.err)
	require.Contains(t, list.out, second.Decision.By)
	history := s.tasker(t, "scale", "history", shopPool, "--changes", "--json")
	require.Zero(t, history.code, history.err)
	var changes readmodel.PoolHistory
	require.NoError(t, json.Unmarshal([]byte(history.out), &changes))
	require.Len(t, changes.Items, 2)
	require.Equal(t, []int{5, 11, 2, 5}, []int{changes.Items[0].From, changes.Items[0].To, changes.Items[1].From, changes.Items[1].To})
	require.Equal(t, first.Decision.By, changes.Items[1].By)

	// The load that it saw can be replayed.
	r := s.tasker(t, "scale", "record", "--pool", shopPool, "-o", filepath.Join(s.dir, "load.csv"), "--every", "1s")
	require.Zero(t, r.code, r.err)
	require.Zero(t, s.tasker(t, "scale", "simulate", "-a", "rate", "-t", filepath.Join(s.dir, "load.csv")).code)
	require.Positive(t, end(), "no task noticed any of it")
	h.stop(t)
}

// TestAScalingPluginThatMisbehaves: whatever a plugin answers, or does not, the
// pool keeps its size, says why, and the steps go on.
func TestAScalingPluginThatMisbehaves(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.DSN(t), "TASKER__EXECUTOR_POOLS__STEP_EXECUTION__ALGORITHM=sway", "TASKER__EXECUTOR_POOLS__STEP_EXECUTION__MIN=2",
		"TASKER__EXECUTOR_POOLS__STEP_EXECUTION__MAX=40", "TASKER__EXECUTOR_POOLS__COORDINATOR__INTERVAL=200ms", "TASKER__EXECUTOR_POOLS__COORDINATOR__TIMEOUT=300ms")
	s.plugins(t, pluginTable("arithmetic", filepath.Join(built, "arithmetic"), "")+scalingTable("sway", filepath.Join(built, "sway")))
	h := s.up(t)
	applyExample(t, h, "arithmetic/templates/linear.yaml")
	end := underLoad(t, h)
	h.sized(t, 5)
	for _, c := range []struct{ algorithm, reason string }{
		{"sway.million", "more than 100 times the largest allowed"},
		{"sway.negative", "held: "},
		{"sway.nan", "held: "},
		{"sway.late", "held: the algorithm did not answer in time"},
		{"sway.panic", "out of range"},
		{"sway.crash", "held: the algorithm failed: "},
	} {
		r := s.tasker(t, "pool", "set", shopPool, "--algorithm", c.algorithm)
		require.Zero(t, r.code, r.err)
		eventually(t, patience, c.algorithm+" is held", func() bool {
			p := h.pool(t)
			require.Equal(t, 5, p.Target, c.algorithm)
			return p.Decision.Algorithm == c.algorithm && p.Decision.Advice == nil && strings.Contains(p.Decision.Reason, c.reason)
		})
	}

	// One that cannot make up its mind turns the pool at most once a window.
	require.Zero(t, s.tasker(t, "pool", "set", shopPool, "--algorithm", "sway.oscillate").code)
	eventually(t, patience, "it has been asked often", func() bool {
		all, err := h.Client.PoolHistory(t.Context(), shopPool, 100, false)
		require.NoError(t, err)
		asked := 0
		for _, d := range all.Items {
			if d.Algorithm == "sway.oscillate" && d.Advice != nil {
				asked++
			}
		}
		return asked >= 20
	})
	changes, err := h.Client.PoolHistory(t.Context(), shopPool, 100, true)
	require.NoError(t, err)
	turned := time.Time{}
	for i, d := range changes.Items { // the newest first
		if i+1 == len(changes.Items) || (d.To > d.From) == (changes.Items[i+1].To > changes.Items[i+1].From) {
			continue
		}
		require.True(t, turned.IsZero() || turned.Sub(d.At) >= 30*time.Second, "%+v", changes.Items)
		turned = d.At
	}
	require.Positive(t, end())
	h.stop(t)
}
