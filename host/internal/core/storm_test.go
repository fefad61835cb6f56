package core

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/plugins/test/ledger/book"
)

// ledgers builds the ledger plugin, and a copy of it that is a different artifact.
func ledgers(t testing.TB) (paths [2]string) {
	t.Helper()
	dir := t.TempDir()
	for i, name := range []string{"one", "two"} {
		paths[i] = filepath.Join(dir, name)
	}
	build := exec.Command("go", "build", "-o", paths[0], "github.com/tasker-systems/tasker-host/plugins/test/ledger")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	binary, err := os.ReadFile(paths[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(paths[1], append(binary, "another"...), 0o700)) // bytes after the end of an ELF file have no effect
	return paths
}

const stormTemplate = `namespace: storm
name: chain
version: 1.0.0
steps:
  - {name: a, handler: ledger.step, config: {min_ms: 1, max_ms: 8}}
  - {name: b, handler: ledger.step, depends_on: [a], config: {min_ms: 1, max_ms: 8}}
  - {name: c, handler: ledger.step, depends_on: [a], config: {min_ms: 1, max_ms: 8}}
  - {name: d, handler: ledger.step, depends_on: [b, c], config: {min_ms: 1, max_ms: 8}}
`

// counts must not grow with the number of swaps.
type counts struct{ goroutines, files, children, sockets, heapMiB int }

func count(t *testing.T) counts {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	children := 0
	threads, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	for _, thread := range threads {
		raw, err := os.ReadFile(filepath.Join("/proc/self/task", thread.Name(), "children"))
		if err == nil { // the thread may have ended
			children += len(strings.Fields(string(raw)))
		}
	}
	sockets := 0
	for _, f := range files {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", f.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			sockets++
		}
	}
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return counts{runtime.NumGoroutine(), len(files), children, sockets, int(mem.HeapAlloc >> 20)}
}

// swapsOf returns the number of swaps, which TASKER_STORM_SWAPS overrides.
func swapsOf(t *testing.T) int {
	t.Helper()
	text := os.Getenv("TASKER_STORM_SWAPS")
	if text == "" {
		return stormSwaps
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "TASKER_STORM_SWAPS")
	require.Positive(t, n, "TASKER_STORM_SWAPS")
	return n
}

// Plugins are swapped again and again while 64 tasks are in progress: no step is lost,
// runs twice or fails, and nothing is left behind.
func TestSwapStorm(t *testing.T) {
	swaps := swapsOf(t)
	ledger := filepath.Join(t.TempDir(), "book")
	paths := ledgers(t)
	options, err := json.Marshal(map[string]string{"dir": ledger})
	require.NoError(t, err)
	b := startWith(t, []config.PluginSpec{{
		Kind: "handler", Name: "ledger", Options: options, PluginSettings: config.PluginSettings{
			Path: paths[0], Required: true, MaxInFlight: 64, StartTimeout: time.Minute, DrainTimeout: time.Minute, RollbackWindow: time.Minute,
		},
	}}, "")
	spec := pluginSpecs(b.opts.Plugins)[0]
	spec.Rollout.Trial = -1 // both are the same, but the machine's load may differ
	_, err = b.plugins.Apply(t.Context(), []pluginhost.Spec{spec}, journal.ByConfig, "test")
	require.NoError(t, err)
	_, _, err = b.api.ApplyTemplate(t.Context(), "chain.yaml", []byte(stormTemplate))
	require.NoError(t, err)

	var submitted atomic.Int64
	stop := make(chan struct{})
	var submitters sync.WaitGroup
	for range 64 {
		submitters.Go(func() { keepOneOpen(t, b, stop, &submitted) })
	}
	require.Eventually(t, func() bool { return submitted.Load() > 64 }, time.Minute, time.Millisecond)
	id := pluginhost.SlotID{Kind: "handler", Name: "ledger"}
	var before counts
	switches := make([]time.Duration, 0, swaps)
	for n := range swaps {
		if n == min(10, swaps/2) {
			before = count(t)
		}
		if n > 0 && n%max(100, swaps/10) == 0 { // only a long one reports its progress
			t.Logf("%d swaps, %d tasks: %+v, of the heap %d KiB are the test's log", n, submitted.Load(), count(t), len(b.log.String())>>10)
		}
		began := time.Now()
		require.NoError(t, b.plugins.Swap(t.Context(), id, pluginhost.Source{Path: paths[(n+1)%2]}, journal.Operator("storm"), "swap "+strconv.Itoa(n)))
		switches = append(switches, time.Since(began))
	}
	var now counts
	require.Eventually(t, func() bool { // the last drains may be in progress
		now = count(t)
		return now.goroutines <= before.goroutines+30 && now.files <= before.files+15 && now.sockets <= before.sockets+15 &&
			now.children <= before.children+1 && now.heapMiB <= 2*before.heapMiB+16
	}, time.Minute, 20*time.Millisecond, "before %+v", before)
	close(stop)
	submitters.Wait()

	entries, _, err := book.Read(ledger)
	require.NoError(t, err)
	requireOnce(t, entries, int(submitted.Load()))
	e, err := b.plugins.Explain(id)
	require.NoError(t, err)
	require.Empty(t, e.Quarantined)
	require.Zero(t, e.Restarts)
	require.NotContains(t, b.log.String(), "illegal change")
	slices.Sort(switches)
	t.Logf("%d swaps, publish to serving p50 %s, max %s; %d tasks, %d steps; after ten swaps %+v, at the end %+v", swaps,
		switches[len(switches)/2], switches[len(switches)-1], submitted.Load(), 4*submitted.Load(), before, now)
	requireAccount(t, b, id, swaps)
}

// keepOneOpen submits tasks, each after the previous one has ended.
func keepOneOpen(t *testing.T, b *bed, stop <-chan struct{}, submitted *atomic.Int64) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		n := submitted.Add(1)
		task, _, err := b.api.Submit(t.Context(), client.Submission{Namespace: "storm", Name: "chain", Context: json.RawMessage(fmt.Sprintf(`{"n": %d}`, n))})
		if err != nil {
			t.Errorf("submit: %v", err)
			return
		}
		end, err := b.api.Watch(t.Context(), task.UUID, func(readmodel.Snapshot) {})
		if err != nil || end.State != "complete" {
			t.Errorf("task %s: %+v, %v", task.UUID, end, err)
			return
		}
	}
}

// requireOnce requires that every step of the given number of tasks ran once.
func requireOnce(t *testing.T, entries []book.Entry, tasks int) {
	t.Helper()
	started, taken := map[string]int{}, map[string]int{}
	for _, e := range entries {
		switch e.Event {
		case book.Started:
			started[e.Step]++
			require.Equal(t, 1, e.Attempt, "step %s of %s", e.Name, e.Task)
		case book.Accepted:
			taken[e.Step]++
		}
	}
	require.Len(t, started, 4*tasks)
	require.Len(t, taken, 4*tasks)
	for step, n := range started {
		require.Equal(t, 1, n, "step %s", step)
	}
}

// requireAccount requires that the journal has recorded every swap.
func requireAccount(t *testing.T, b *bed, id pluginhost.SlotID, swaps int) {
	t.Helper()
	require.Eventually(t, func() bool {
		generations, err := b.Store.PluginGenerations(t.Context(), "test", id, 0, swaps+10)
		return err == nil && len(generations) >= swaps+1
	}, time.Minute, 50*time.Millisecond)
	events, err := b.Store.PluginEvents(t.Context(), "test", id, 0, 30*(swaps+10))
	require.NoError(t, err)
	promoted := 0
	for _, e := range events {
		if e.To == journal.Active && strings.HasPrefix(string(e.Actor), "operator:storm") {
			promoted++
		}
	}
	require.Equal(t, swaps, promoted)
	require.Equal(t, b.plugins.Status()[0].Generation, journal.Replay(events, time.Now())[id].Primary)
}
