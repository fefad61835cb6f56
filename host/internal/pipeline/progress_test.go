package pipeline_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// hearing is a store that notes when progress is written, and fails at first.
type hearing struct {
	*store.Store

	mu    sync.Mutex
	heard []time.Time
}

func (h *hearing) TellProgress(ctx context.Context, host int32, told []store.Told, ended []vocab.UUID) error {
	h.mu.Lock()
	h.heard = append(h.heard, time.Now())
	first := len(h.heard) == 1
	h.mu.Unlock()
	if first {
		return errors.New("the database is away")
	}
	return h.Store.TellProgress(ctx, host, told, ended)
}

func (h *hearing) times() []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]time.Time{}, h.heard...)
}

// Progress is written at most once a second, however often steps report it; it is written
// again after a failure, and removed when the steps end. Steps that report nothing cost
// nothing.
func TestProgressIsWritten(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	h := &hearing{Store: store.New(pool)}
	cfg := testConfig()
	require.NoError(t, h.CreateQueue(t.Context(), cfg.RequestQueue))
	require.NoError(t, h.CreateQueue(t.Context(), cfg.ResultQueue))
	var quiet atomic.Bool
	quiet.Store(true)
	enough := make(chan struct{})
	r := newRunner(map[string]handlerFunc{"t.step": func(ctx context.Context, _ *pluginv1.Step) pluginhost.Outcome {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for percent := 1; !quiet.Load(); percent = percent%100 + 1 {
			handler.Progress(ctx, percent, "so\x00 far")
			select {
			case <-tick.C:
			case <-enough:
				return success(`1`)
			case <-ctx.Done():
				return failure(vocab.OutcomeReleased, "stopped")
			}
		}
		return success(`1`)
	}})
	e := pipeline.New(cfg, h, r, finalizer.New(pool, "test", 30*time.Second), prometheus.NewRegistry(), hclog.NewNullLogger())
	require.NoError(t, e.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		r.stop()
		require.NoError(t, e.Stop(ctx))
	})
	b := &testBundle{pool: pool, store: h.Store, engine: e, runner: r}
	b.apply(t, diamond)
	require.Equal(t, vocab.TaskComplete, b.settled(t, b.submit(t, "diamond", `{}`)))
	require.Empty(t, h.times(), "nothing was reported")

	quiet.Store(false)
	began := time.Now()
	task := b.submit(t, "diamond", `{}`)
	eventually(t, "it is written", func() bool {
		return count(t, b, `select count(*) from tasker_step_progress where percent between 1 and 100 and note = 'so far'`) == 1
	})
	told, err := h.Progress(t.Context(), task)
	require.NoError(t, err)
	require.Len(t, told, 1)
	require.Equal(t, "a", told[0].Step)
	eventually(t, "it is written again and again", func() bool { return len(h.times()) >= 4 })
	require.GreaterOrEqual(t, h.times()[3].Sub(began), 3*time.Second)

	close(enough)
	require.Equal(t, vocab.TaskComplete, b.settled(t, task))
	eventually(t, "nothing is left of it", func() bool { return count(t, b, `select count(*) from tasker_step_progress`) == 0 })
	told, err = h.Progress(t.Context(), task)
	require.NoError(t, err)
	require.Empty(t, told)
}

// What a dead host has written is removed with its leases.
func TestProgressOfADeadHostGoes(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome { return success(`1`) }})
	host, err := b.store.RegisterHost(t.Context(), store.HostInfo{Name: "other", Version: "0", Environment: "test", State: "normal"}, time.Millisecond)
	require.NoError(t, err)
	require.NoError(t, b.store.TellProgress(t.Context(), host, []store.Told{{Lease: vocab.UUID{1}, Percent: 7}}, nil))
	eventually(t, "it is swept", func() bool {
		return count(t, b, `select count(*) from tasker_hosts where name = 'other' and swept_at is not null`) == 1
	})
	require.Zero(t, count(t, b, `select count(*) from tasker_step_progress`))
}
