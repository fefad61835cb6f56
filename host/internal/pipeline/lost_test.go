package pipeline_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// twoSteps has the name of oneStep, and is requested in the same way.
const twoSteps = `
namespace: test_ns
name: one
version: 1.0.0
steps:
  - {name: a, handler: t.step}
  - {name: b, handler: t.step, depends_on: [a]}
`

// wire is a store in which the test controls the calls that may lease steps, and in which
// looks at the host's leases wait until the test has seen their result.
type wire struct {
	*store.Store

	// carry sends a call, which returns how many steps it leased, and returns the error
	// for the host.
	carry func(what string, send func() (leases int, err error)) error

	looks chan look
	freed chan struct{}
	free  func() // from now on looks do not wait
}

// look is what a look at the leases saw in the database, before the host has compared it
// with what it knows.
type look struct {
	leases  []store.Held
	compare chan struct{} // closed when it may do so
}

func newWire(s *store.Store) *wire {
	w := &wire{Store: s, looks: make(chan look), freed: make(chan struct{})}
	w.free = sync.OnceFunc(func() { close(w.freed) })
	return w
}

func (w *wire) HostLeases(ctx context.Context, host int32) ([]store.Held, error) {
	leases, err := w.Store.HostLeases(ctx, host)
	l := look{leases, make(chan struct{})}
	select {
	case w.looks <- l:
	case <-w.freed:
		return leases, err
	}
	select {
	case <-l.compare:
	case <-w.freed:
	}
	return leases, err
}

// next returns the next look.
func (w *wire) next(t *testing.T) look {
	t.Helper()
	select {
	case l := <-w.looks:
		return l
	case <-time.After(time.Minute):
		t.Fatal("the host does not look")
		return look{}
	}
}

// pass lets the given number of looks that saw a lease of the step proceed; all of them
// must have seen the same one.
func (w *wire) pass(t *testing.T, looks int, step int32) {
	t.Helper()
	var first *store.Held
	for looks > 0 {
		l := w.next(t)
		at := slices.IndexFunc(l.leases, func(h store.Held) bool { return h.Number == step })
		if first == nil && at >= 0 {
			first = &l.leases[at]
		}
		if first != nil {
			require.Contains(t, l.leases, *first, "it was given back")
			looks--
		}
		close(l.compare)
	}
}

// until lets looks proceed until there is a signal.
func (w *wire) until(t *testing.T, signal <-chan struct{}) {
	t.Helper()
	for late := time.After(time.Minute); ; {
		select {
		case <-signal:
			return
		case l := <-w.looks:
			close(l.compare)
		case <-late:
			t.Fatal("that does not happen")
		}
	}
}

func (w *wire) Claim(ctx context.Context, g store.Grant, queue string, names []string, after int64) (store.Claimed, error) {
	return carried(w, "claim", func() (store.Claimed, int, error) {
		c, err := w.Store.Claim(context.WithoutCancel(ctx), g, queue, names, after) // as the server continues with what a host has given up
		return c, len(c.Leases), err
	})
}

func (w *wire) CreateTasks(ctx context.Context, g store.Grant, batch []store.NewTask, requests string) ([]store.Created, error) {
	return carried(w, "create", func() ([]store.Created, int, error) {
		created, err := w.Store.CreateTasks(ctx, g, batch, requests)
		leases := 0
		for _, c := range created {
			leases += len(c.Leases)
		}
		return created, leases, err
	})
}

func (w *wire) Settle(ctx context.Context, g store.Grant, p store.Policy, batch []store.Settlement) (store.Settled, error) {
	return carried(w, "settle", func() (store.Settled, int, error) {
		s, err := w.Store.Settle(ctx, g, p, batch)
		return s, len(s.Leases), err
	})
}

func (w *wire) SettlePosted(ctx context.Context, host int32, queue string, p store.Policy, batch []store.Posted) (store.Settled, error) {
	return carried(w, "settle posted", func() (store.Settled, int, error) {
		s, err := w.Store.SettlePosted(ctx, host, queue, p, batch)
		return s, len(s.Verdicts), err
	})
}

func carried[T any](w *wire, what string, send func() (T, int, error)) (T, error) {
	var sent, none T
	err := w.carry(what, func() (leases int, err error) {
		sent, leases, err = send()
		return leases, err
	})
	if err != nil {
		return none, err
	}
	return sent, nil
}

// wired sets up a host behind a wire, with a template and one task of which it leases a
// step by the named call. Each run of a step is counted.
func wired(t *testing.T, by string, carry func(w *wire) func(what string, send func() (int, error)) error) (b *testBundle, w *wire, ran *atomic.Int32) {
	t.Helper()
	db := pgtest.New(t)
	w, ran = newWire(store.New(db)), new(atomic.Int32)
	w.carry = carry(w)
	handlers := map[string]handlerFunc{"t.step": func(context.Context, *pluginv1.Step) pluginhost.Outcome {
		ran.Add(1)
		return success(`1`)
	}}
	template := oneStep
	switch by {
	case "settle posted":
		handlers = map[string]handlerFunc{} // an outside worker runs it
	case "settle":
		template = twoSteps
	case "claim":
		other := setupOn(t, db, map[string]handlerFunc{})
		other.apply(t, template)
		other.submit(t, "one", `{}`)
	}
	b = setupWith(t, db, w, w.Store, handlers, func(c *pipeline.Config) {
		c.SweepInterval, c.LostAfter = 20*time.Millisecond, 40*time.Millisecond
	}, hands(pipeline.TaskClaimer, func(h *pipeline.HandsConfig) { h.Pace.Batch = 5 })) // so that one in progress leaves room for the others
	t.Cleanup(w.free)
	if by == "claim" {
		return b, w, ran
	}
	b.apply(t, template)
	if by != "settle posted" {
		b.send(t, "task_requests_queue", string(taskRequest(1)))
		return b, w, ran
	}
	task := b.submit(t, "one", `{}`)
	b.send(t, "orchestration_step_results", fmt.Sprintf(`{"task_uuid":%q,"step_uuid":%q,"status":"Success","results":1}`, task, vocab.StepID(task, 0)))
	return b, w, ran
}

// lost returns how many leases were given back because their reply was lost.
func (b *testBundle) lost(t *testing.T) int {
	t.Helper()
	return count(t, b, `select count(*) from tasker_workflow_step_transitions where metadata ->> 'reason' = 'reply_lost'`)
}

// TestReplyThatIsLongOnItsWay: a step whose lease the host sees in the database, look
// after look, before the reply arrives, is not given back, and runs once.
func TestReplyThatIsLongOnItsWay(t *testing.T) {
	t.Parallel()
	for by, c := range map[string]struct {
		step int32 // whose lease the host does not learn of
		runs int32
	}{
		"claim":  {runs: 1},
		"create": {runs: 1},
		"settle": {step: 1, runs: 2},
	} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			held, reply := make(chan struct{}), make(chan struct{})
			var once atomic.Bool
			b, w, ran := wired(t, by, func(w *wire) func(string, func() (int, error)) error {
				return func(what string, send func() (int, error)) error {
					leases, err := send()
					if what == by && leases > 0 && once.CompareAndSwap(false, true) {
						close(held)
						select {
						case <-reply:
						case <-w.freed:
						}
					}
					return err
				}
			})
			w.until(t, held)
			w.pass(t, 6, c.step)
			close(reply)
			w.free()
			b.ended(t, 1)
			require.Equal(t, c.runs, ran.Load())
			require.Zero(t, b.lost(t))
			require.Zero(t, count(t, b, `select count(*) from tasker_workflow_steps where claims <> 1`))
			require.Zero(t, count(t, b, `select count(*) from tasker_dead_letters`))
		})
	}
}

// TestPostedResultWhoseReplyIsLost: it counts nevertheless, and once: the repeated call
// finds that it has been judged.
func TestPostedResultWhoseReplyIsLost(t *testing.T) {
	t.Parallel()
	var lost atomic.Int32
	b, _, _ := wired(t, "settle posted", func(w *wire) func(string, func() (int, error)) error {
		w.free()
		return func(what string, send func() (int, error)) error {
			n, err := send()
			if what == "settle posted" && n > 0 && lost.Add(1) <= 2 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	})
	b.ended(t, 1)
	eventually(t, "the answer gets through", func() bool { return lost.Load() == 3 })
	require.Zero(t, count(t, b, `select count(*) from tasker_workflow_steps where state <> 'complete' or claims <> 1`))
	require.Zero(t, count(t, b, `select count(*) from tasker_dead_letters`))
	require.Zero(t, count(t, b, `select count(*) from pgmq.q_orchestration_step_results`))
}

// TestStopWaitsForPostedResults: those that the host has begun to record.
func TestStopWaitsForPostedResults(t *testing.T) {
	t.Parallel()
	sent, let := make(chan struct{}), make(chan struct{})
	b, w, _ := wired(t, "settle posted", func(w *wire) func(string, func() (int, error)) error {
		w.free()
		return func(what string, send func() (int, error)) error {
			if what != "settle posted" {
				_, err := send()
				return err
			}
			close(sent)
			<-let
			_, err := send()
			return err
		}
	})
	w.until(t, sent)
	b.engine.Drain(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- b.engine.Stop(t.Context()) }()
	close(let)
	require.NoError(t, <-stopped)
	b.ended(t, 1)
}

// TestReplyThatIsLost: its step is given back, and runs once.
func TestReplyThatIsLost(t *testing.T) {
	t.Parallel()
	for by, runs := range map[string]int32{"claim": 1, "create": 1, "settle": 2} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			var once atomic.Bool
			b, _, ran := wired(t, by, func(w *wire) func(string, func() (int, error)) error {
				w.free()
				return func(what string, send func() (int, error)) error {
					leases, err := send()
					if what == by && leases > 0 && once.CompareAndSwap(false, true) {
						return io.ErrUnexpectedEOF
					}
					return err
				}
			})
			b.ended(t, 1)
			require.True(t, once.Load())
			require.Equal(t, runs, ran.Load())
			require.Equal(t, 1, b.lost(t))
		})
	}
}

// TestCallThatCommitsAfterItHasFailed: its leases appear when nobody waits for them any
// more, and are given back nevertheless.
func TestCallThatCommitsAfterItHasFailed(t *testing.T) {
	t.Parallel()
	failed, let, committed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var once, late atomic.Bool
	b, w, ran := wired(t, "claim", func(w *wire) func(string, func() (int, error)) error {
		return func(what string, send func() (int, error)) error {
			switch {
			case what != "claim" || late.Load():
				_, err := send()
				return err
			case once.CompareAndSwap(false, true):
				go func() {
					defer close(committed)
					select {
					case <-let:
						leases, err := send()
						late.Store(err == nil && leases == 1)
					case <-w.freed: // the test has failed
					}
				}()
				close(failed)
				return io.ErrUnexpectedEOF
			default:
				return store.ErrRefused
			}
		}
	})
	w.until(t, failed)
	for range 3 {
		l := w.next(t)
		require.Empty(t, l.leases)
		close(l.compare)
	}
	close(let)
	w.until(t, committed)
	w.free()
	require.True(t, late.Load())
	b.ended(t, 1)
	require.Equal(t, int32(1), ran.Load())
	require.Equal(t, 1, b.lost(t))
}
