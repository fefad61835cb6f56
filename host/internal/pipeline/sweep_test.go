package pipeline

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// world is a database with a host. Calls lease steps to the host, and what happens to
// each call, lease and outcome comes in any order, even in the middle of a look at the
// leases. There are few steps, so that one is often leased again.
type world struct {
	Store

	t      *testing.T
	rand   *rand.Rand
	engine *Engine
	leased map[store.StepKey]vocab.UUID // what the database shows
	calls  []*leasing
	seen   []store.Held // what the last look saw
	still  bool         // nothing happens any more
}

// leasing is a call that leases a step, and what happened to it.
type leasing struct {
	ticket
	store.Held

	committed, failed, replied, recorded, concluded bool

	attempt *attempt // nil: its lease is being given back
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 0)), leased: map[store.StepKey]vocab.UUID{}}
	calls := &lanes{}
	w.engine = &Engine{
		store: w, held: newHeld(), metrics: newMetrics(prometheus.NewRegistry()), log: hclog.NewNullLogger(), work: context.Background(),
		outcomes: newBatcher(calls.line(), settlement.size),
	}
	return w
}

// one returns one of the calls for which a condition is true, or nil if there is none.
func (w *world) one(is func(c *leasing) bool) *leasing {
	var all []*leasing
	for _, c := range w.calls {
		if is(c) {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[w.rand.IntN(len(all))]
}

// moves are the events that may happen at any time.
func (w *world) moves() []func() {
	return []func(){
		func() { // a call is sent
			c := &leasing{ticket: w.engine.grants.begin()}
			c.Number = w.rand.Int32N(3)
			c.Lease[0], c.Lease[1] = byte(len(w.calls)), byte(len(w.calls)>>8)
			c.attempt = &attempt{Lease: store.Lease{StepKey: c.StepKey, ID: c.Lease}}
			w.calls = append(w.calls, c)
		},
		func() { // it commits, even if the host has given it up
			if c := w.one(func(c *leasing) bool { _, taken := w.leased[c.StepKey]; return !c.committed && !taken }); c != nil {
				c.committed = true
				w.leased[c.StepKey] = c.Lease
			}
		},
		func() { // its reply arrives
			if c := w.one(func(c *leasing) bool { return c.committed && !c.failed && !c.replied }); c != nil {
				w.reply(c)
			}
		},
		func() { // its connection breaks
			if c := w.one(func(c *leasing) bool { return !c.failed && !c.replied }); c != nil {
				c.failed = true
				w.engine.grants.end(c.ticket)
			}
		},
		func() { // an outcome commits
			if c := w.one(func(c *leasing) bool { return c.replied && !c.recorded }); c != nil {
				w.record(c)
			}
		},
		func() { // the host learns of that
			if c := w.one(func(c *leasing) bool { return c.recorded && !c.concluded }); c != nil {
				w.conclude(c)
			}
		},
		func() { // someone else ends a lease
			delete(w.leased, store.StepKey{Number: w.rand.Int32N(3)})
		},
	}
}

func (w *world) reply(c *leasing) {
	c.replied = true
	w.engine.held.add([]*attempt{c.attempt})
	w.engine.grants.end(c.ticket)
}

func (w *world) record(c *leasing) {
	c.recorded = true
	if w.leased[c.StepKey] == c.Lease {
		delete(w.leased, c.StepKey)
	}
}

func (w *world) conclude(c *leasing) {
	c.concluded = true
	if c.attempt != nil {
		w.engine.held.remove(c.attempt)
	} else {
		w.engine.held.drop(c.Held)
	}
}

// much makes many things happen.
func (w *world) much() {
	if w.still {
		return
	}
	moves := w.moves()
	for range w.rand.IntN(12) {
		moves[w.rand.IntN(len(moves))]()
	}
}

// finish completes everything in progress.
func (w *world) finish() {
	for _, c := range w.calls {
		switch {
		case c.failed || c.replied:
		case c.committed:
			w.reply(c)
		default:
			c.failed = true
			w.engine.grants.end(c.ticket)
		}
		if c.replied && !c.concluded {
			w.record(c)
			w.conclude(c)
		}
	}
}

// HostLeases is called by reconcile. Much happens before the query, and before its reply
// arrives.
func (w *world) HostLeases(context.Context, int32) ([]store.Held, error) {
	w.much()
	w.seen = nil
	for step, lease := range w.leased {
		w.seen = append(w.seen, store.Held{StepKey: step, Lease: lease})
	}
	w.much()
	return w.seen, nil
}

// look makes the host compare its leases with the database. What it gives back must be
// from a call whose reply never arrived, and is given back once.
func (w *world) look(unknown suspects, back map[store.Held]bool) suspects {
	unknown = w.engine.reconcile(&turns{}, unknown)
	given := w.engine.outcomes.take(100)
	if given != nil {
		w.engine.outcomes.done()
	}
	for _, s := range given {
		call := w.calls[int(s.Lease[0])+int(s.Lease[1])<<8]
		require.Equal(w.t, vocab.OutcomeReleased, s.Outcome)
		require.Contains(w.t, w.seen, s.held())
		require.True(w.t, call.failed, "lease %v is not lost", call.Lease[:2])
		require.False(w.t, back[s.held()], "twice")
		back[s.held()] = true
		call.attempt, call.replied = nil, true
	}
	return unknown
}

// TestOnlyLostLeasesAreGivenBack: in whatever order things happen; and in the end all
// lost ones are.
func TestOnlyLostLeasesAreGivenBack(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1000) {
		w := newWorld(t, seed)
		var unknown suspects
		back := map[store.Held]bool{}
		for range 10 {
			w.much()
			unknown = w.look(unknown, back)
		}
		w.still = true
		for range 3 { // it is seen, it is given back, and that is recorded
			w.finish()
			unknown = w.look(unknown, back)
		}
		require.Empty(t, w.leased)
		require.Empty(t, unknown)
	}
}

// TestABusyHostGivesBackToo: a host that is never without a call, each of which takes
// longer than the time between two looks.
func TestABusyHostGivesBackToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.still = true
	lost := store.Held{StepKey: store.StepKey{Number: 1}, Lease: vocab.UUID{1}}
	w.leased[lost.StepKey] = lost.Lease
	var unknown suspects
	var calls []ticket
	for range 3 {
		require.Zero(t, w.engine.outcomes.len())
		calls = append(calls, w.engine.grants.begin())
		unknown = w.engine.reconcile(&turns{}, unknown)
	}
	for range 2 {
		calls = append(calls, w.engine.grants.begin())
		w.engine.grants.end(calls[0])
		calls = calls[1:]
		unknown = w.engine.reconcile(&turns{}, unknown)
	}
	require.Len(t, w.engine.outcomes.take(1), 1)
	require.Empty(t, unknown)
}

// vanished is a database whose machine is gone: no call gets an answer, and nothing says
// so. It may have answered the sweep of messages before.
type vanished struct {
	Store

	asked   map[string]int
	stalled []vocab.UUID // the answer to the sweep of messages, if there is one
	gone    int          // tasks that could not be finalized
}

func (v *vanished) wait(ctx context.Context, call string) error {
	v.asked[call]++
	ctx, end := store.Page(ctx)
	defer end()
	<-ctx.Done()
	return ctx.Err()
}

func (v *vanished) SweepHosts(ctx context.Context) ([]store.GoneHost, error) {
	return nil, v.wait(ctx, "hosts")
}

func (v *vanished) SetWorkerPolicy(ctx context.Context, _ store.WorkerPolicy) error {
	return v.wait(ctx, "policy")
}

func (v *vanished) SweepWorkerLeases(ctx context.Context, _ store.Policy) (store.SweptLeases, error) {
	return store.SweptLeases{}, v.wait(ctx, "workers")
}

func (v *vanished) SweepLanes(ctx context.Context, _ store.Lane) (int, store.Lane, error) {
	return 0, store.Lane{}, v.wait(ctx, "priorities")
}

func (v *vanished) SweepMessages(ctx context.Context, _ time.Duration) (int, []vocab.UUID, error) {
	if v.stalled != nil {
		v.asked["messages"]++
		return 0, v.stalled, nil
	}
	return 0, nil, v.wait(ctx, "messages")
}

func (v *vanished) EnsurePartitions(ctx context.Context, _ int, _ time.Duration) error {
	return v.wait(ctx, "partitions")
}

func (v *vanished) HostLeases(ctx context.Context, _ int32) ([]store.Held, error) {
	return nil, v.wait(ctx, "leases")
}

func (v *vanished) Heartbeat(context.Context, int32, string, []string, time.Duration, []vocab.UUID) (bool, []store.Revoked, error) {
	return true, nil, nil
}

func (v *vanished) ReleaseHost(ctx context.Context, _ int32, _ string, _ int) (int, error) {
	return 3, v.wait(ctx, "release")
}

func (v *vanished) Finalize(ctx context.Context, _ vocab.UUID) (vocab.TaskState, error) {
	v.gone++
	return "", v.wait(ctx, "finalize")
}

// sweepOf runs the sweep of a host for a while. It returns whether the loop was ever
// considered stuck.
func sweepOf(t *testing.T, db *vanished, during time.Duration) (stuck bool) {
	t.Helper()
	db.asked = map[string]int{}
	cfg := &Config{SweepInterval: time.Second, LostAfter: time.Second}
	work, stop := context.WithCancel(t.Context())
	e := &Engine{
		store: db, finalizer: db, held: newHeld(), hub: newHub(), metrics: newMetrics(prometheus.NewRegistry()), log: hclog.NewNullLogger(),
		work: work, base: time.Now(), rest: newResting(),
	}
	e.now.Store(cfg)
	w := &turns{name: "sweep", every: func() time.Duration { return cfg.SweepInterval }}
	e.watched = []*turns{w}
	w.started(e)
	over := make(chan struct{})
	go func() { e.sweepLoop(w); close(over) }()
	for range during / time.Second {
		<-time.After(time.Second)
		stuck = stuck || e.Loops()[0].Stuck > 0
	}
	stop()
	<-over
	return stuck
}

// TestTheSweepOutlivesADatabaseThatVanishes: every call is given up in time and made
// again, so that the sweep works as soon as there is a database, and no restart of the
// host is called for.
func TestTheSweepOutlivesADatabaseThatVanishes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := &vanished{}
		require.False(t, sweepOf(t, db, 10*time.Minute))
		for _, call := range []string{"hosts", "policy", "workers", "priorities", "messages", "partitions", "leases"} {
			require.GreaterOrEqual(t, db.asked[call], 4, call)
		}
	})
}

// TestOneSilenceIsEnough: the database vanishes before many tasks can be finalized. The
// sweep does not wait for each of them in turn.
func TestOneSilenceIsEnough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := &vanished{stalled: make([]vocab.UUID, 1000)}
		require.False(t, sweepOf(t, db, 10*time.Minute))
		require.GreaterOrEqual(t, db.asked["leases"], 4, "what comes after it")
		require.Equal(t, db.asked["messages"], db.gone)
	})
}

// TestWhatAHostCannotGiveBackInTimeIsLeftToOthers: it has told them that it has stopped,
// and that is not a failure of its stop.
func TestWhatAHostCannotGiveBackInTimeIsLeftToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		db := &vanished{asked: map[string]int{}}
		e := &Engine{store: db, log: hclog.New(&hclog.LoggerOptions{Output: &log})}
		ctx, cancel := context.WithTimeout(t.Context(), leaveTimeout)
		defer cancel()
		require.NoError(t, e.leave(ctx))
		require.Equal(t, 1, db.asked["release"])
		require.Contains(t, log.String(), "[WARN]")
		require.Contains(t, log.String(), "gave leases back: steps=3")
	})
}
