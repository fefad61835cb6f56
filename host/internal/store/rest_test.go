package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func TestRest(t *testing.T) {
	t.Parallel()
	require.Empty(t, restHunt(t, newBed(t)))
}

// restTrial is the setup of restHunt.
type restTrial struct {
	*bed
	t           *testing.T
	host, other int32
	sleeps      *store.Bed
}

func (r *restTrial) ask(host int32, rises int64) store.Rest {
	r.t.Helper()
	found, err := r.store.Rest(r.t.Context(), store.Resting{
		Host: host, Rises: rises, State: "normal", Served: handlers, Lease: time.Hour, RestLease: 2 * time.Hour,
		Queues: []string{namespace + "_queue"}, Inboxes: []string{"in"},
	})
	require.NoError(r.t, err)
	return found
}

// mayRest reports whether the first host may rest.
func (r *restTrial) mayRest(rises int64) bool { return r.ask(r.host, rises).Why == "" }

// roused reports whether the host in bed is roused.
func (r *restTrial) roused() bool {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	roused, err := r.sleeps.Wait(ctx)
	require.NoError(r.t, err)
	return roused
}

func (r *restTrial) send(db pgmq.DBTX, delay time.Duration) int64 {
	r.t.Helper()
	id, err := pgmq.New(db).Send(r.t.Context(), "in", pgmq.Outgoing{Body: []byte(`{}`)}, delay)
	require.NoError(r.t, err)
	return id
}

// restHunt: two hosts with nothing to do, and everything that one must not miss.
func restHunt(t *testing.T, b *bed) string {
	t.Helper()
	r := &restTrial{bed: b, t: t, host: b.host(t), other: b.host(t)}
	require.NoError(t, b.store.CreateQueue(t.Context(), "in"))
	for _, part := range []func() string{r.together, r.holdNothing, r.door, r.wake, r.rises, r.silence, r.watch} {
		if violation := part(); violation != "" {
			if r.sleeps != nil {
				r.sleeps.GetUp(t.Context())
			}
			return violation
		}
	}
	return ""
}

// together: hosts rest only if all do.
func (r *restTrial) together() string {
	if r.mayRest(0) {
		return "one rests while another host works"
	}
	if found := r.ask(r.other, 0); found.Why != "" || !found.Known {
		return "one does not rest: " + found.Why
	}
	if found := r.ask(r.host, 0); found.Why != "" || found.Next != 0 || found.Active {
		return fmt.Sprint("one does not rest: ", found)
	}
	r.exec(r.t, "update tasker_hosts set alive_until = clock_timestamp() - interval '1 s' where host_id = $1", r.other)
	if r.mayRest(0) {
		return "nobody notices that a host died at rest"
	}
	_, err := r.store.SweepHosts(r.t.Context())
	require.NoError(r.t, err)
	if r.mayRest(0) {
		return "the steps of a dead host are not given back"
	}
	_, err = r.store.ReleaseHost(r.t.Context(), r.other, "host_lost", 3)
	require.NoError(r.t, err)
	if !r.mayRest(0) {
		return "it does not rest although the other host is dead"
	}
	return ""
}

func (r *restTrial) holdNothing() string {
	task, leases := r.create(r.t, r.grant(r.host, 1), r.mustPlan(r.t, chain(1)...))
	if len(leases)+len(r.claim(r.t, r.grant(r.host, 1))) > 0 {
		return "a host that rests was given a step"
	}
	if found := r.ask(r.host, 0); found.Why == "" || !found.Active {
		return "it rests although a step waits"
	}
	_, _, err := r.store.CancelTask(r.t.Context(), task, store.Operator{By: "test", Reason: "test"}, r.host)
	require.NoError(r.t, err)
	r.exec(r.t, "delete from pgmq.q_"+namespace+"_queue")
	r.exec(r.t, "insert into tasker_worker_leases (lease_id, task_uuid, step_no, worker_id, lease, look_at) values (gen_random_uuid(), $1, 0, 1, '1 h', 'infinity')", task)
	if r.mayRest(0) {
		return "it rests although outside workers hold leases"
	}
	r.exec(r.t, "delete from tasker_worker_leases")
	return ""
}

// door: a host does not rest while a sender has not committed, and does not block waiting
// for it.
func (r *restTrial) door() string {
	tx, err := r.pool.Begin(r.t.Context())
	require.NoError(r.t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(r.t.Context())) }()
	id := r.send(tx, 0)
	bed, err := r.store.LieDown(r.t.Context())
	if err == nil {
		bed.GetUp(r.t.Context())
		return "it lies down although a sender that rouses nobody has not committed"
	}
	require.ErrorIs(r.t, err, store.ErrAwake)
	require.NoError(r.t, tx.Commit(r.t.Context()))
	if r.mayRest(0) {
		return "it rests although a message waits"
	}
	r.exec(r.t, "select pgmq.delete('in', $1::bigint)", id)
	return ""
}

// wake: every sender, and every message that becomes visible early, rouses all resting
// hosts.
func (r *restTrial) wake() string {
	second, err := r.store.LieDown(r.t.Context())
	require.NoError(r.t, err)
	defer second.GetUp(r.t.Context())
	if r.sleeps, err = r.store.LieDown(r.t.Context()); err != nil {
		return "two cannot rest: " + err.Error()
	}
	id := r.send(r.pool, time.Hour)
	if !r.roused() {
		return "what is sent rouses nobody"
	}
	if found := r.ask(r.host, 0); found.Why != "" || found.Next < 30*time.Minute || found.Next > time.Hour {
		return fmt.Sprint("when a message comes due is not told: ", found)
	}
	_, _, err = pgmq.New(r.pool).SetVT(r.t.Context(), "in", id, 0)
	require.NoError(r.t, err)
	if !r.roused() {
		return "a message that becomes visible early rouses nobody"
	}
	r.exec(r.t, "select pgmq.delete('in', $1::bigint)", id)
	return ""
}

// rises: a host reports that it no longer rests, which supersedes what it said before.
func (r *restTrial) rises() string {
	alive, _, err := r.store.Rise(r.t.Context(), r.host, 1, "normal", handlers, time.Hour, []vocab.UUID{})
	require.NoError(r.t, err)
	require.True(r.t, alive)
	rests := func() bool { return one[bool](r.t, r.bed, "select rests from tasker_hosts where host_id = $1", r.host) }
	switch {
	case rests():
		return "it rests when it has said that it does not"
	case !r.roused():
		return "a host that rises rouses nobody"
	case r.ask(r.host, 0).Known || rests():
		return "it rests by a call that came too late"
	case !r.ask(r.host, 1).Known || !rests():
		return "it cannot rest again"
	}
	r.sleeps.GetUp(r.t.Context())
	r.sleeps = nil
	return ""
}

// silence: no notification is sent when nobody rests.
func (r *restTrial) silence() string {
	conn, err := r.pool.Acquire(r.t.Context())
	require.NoError(r.t, err)
	defer conn.Release()
	_, err = conn.Exec(r.t.Context(), "listen tasker_rouse")
	require.NoError(r.t, err)
	defer func() { _, _ = conn.Exec(context.WithoutCancel(r.t.Context()), "unlisten *") }()
	r.send(r.pool, time.Hour)
	r.exec(r.t, "select pg_notify('tasker_rouse', 'mark')")
	n, err := conn.Conn().WaitForNotification(r.t.Context())
	require.NoError(r.t, err)
	if n.Payload != "mark" {
		return "it notifies although nobody rests"
	}
	return ""
}

// watch: no host relies on a queue that does not rouse hosts.
func (r *restTrial) watch() string {
	_, err := r.pool.Exec(r.t.Context(), "select pgmq.drop_queue('in'); select pgmq.create('in')", pgx.QueryExecModeSimpleProtocol)
	require.NoError(r.t, err)
	if found := r.ask(r.host, 1); found.Why == "" || len(found.Blind) != 1 {
		return "it relies on a queue that rouses nobody"
	}
	all, err := r.store.WatchQueues(r.t.Context(), []string{"in", "there_is_none"})
	require.NoError(r.t, err)
	require.False(r.t, all)
	if !r.mayRest(1) {
		return "the queue cannot be repaired"
	}
	return ""
}

// TestWatchingAQueueHoldsUpNobody: creating a trigger waits for senders that have not
// committed, and others would wait behind it.
func TestWatchingAQueueHoldsUpNobody(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.exec(t, "select pgmq.create('in')")
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = pgmq.New(tx).Send(t.Context(), "in", pgmq.Outgoing{Body: []byte(`{}`)}, 0)
	require.NoError(t, err)
	done, err := b.store.WatchQueues(t.Context(), []string{"in"})
	require.NoError(t, err)
	require.False(t, done, "somebody is sending")
	require.NoError(t, tx.Commit(t.Context()))

	tx, err = b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `create role stranger; grant usage on schema pgmq to stranger; set local role stranger`, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	require.NoError(t, tx.QueryRow(t.Context(), "select tasker_watch_queue('in')").Scan(&done))
	require.False(t, done, "it belongs to someone else")
	require.NoError(t, tx.Rollback(t.Context()))

	done, err = b.store.WatchQueues(t.Context(), []string{"in"})
	require.NoError(t, err)
	require.True(t, done)
}

// TestABedIsMadeAnew: what roused the previous user of a bed does not rouse the next one,
// however often it did.
func TestABedIsMadeAnew(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	require.NoError(t, b.store.CreateQueue(t.Context(), "in"))
	r := &restTrial{bed: b, t: t}
	var err error
	r.sleeps, err = b.store.LieDown(t.Context())
	require.NoError(t, err)
	for range 5 {
		r.send(b.pool, 0)
	}
	require.True(t, r.roused())
	var beds []*store.Bed // whichever connections they use
	defer func() {
		for _, bed := range beds {
			bed.GetUp(t.Context())
		}
	}()
	r.sleeps.GetUp(t.Context())
	for range b.pool.Stat().MaxConns() - 1 {
		bed, err := b.store.LieDown(t.Context())
		require.NoError(t, err)
		beds = append(beds, bed)
	}
	for _, bed := range beds {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // what has arrived already is reported nevertheless
		roused, err := bed.Wait(ctx)
		require.NoError(t, err)
		require.False(t, roused)
	}
}

// TestNobodyIsMissedWhileHostsLieDown: several send, at random times, with transactions
// of random length, and not again until everything is found, although hosts only look
// when they lie down or are roused.
func TestNobodyIsMissedWhileHostsLieDown(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	require.NoError(t, b.store.CreateQueue(t.Context(), "in"))
	ctx, cancel := context.WithCancel(t.Context())
	var found atomic.Int64
	var resting sync.WaitGroup
	defer resting.Wait()
	defer cancel()
	resting.Go(func() {
		for ctx.Err() == nil {
			bed, err := b.store.LieDown(ctx)
			if err != nil {
				continue // a message is being sent
			}
			messages, err := b.store.ReadMessages(ctx, "in", time.Hour, 100)
			if found.Add(int64(len(messages))); err == nil && len(messages) == 0 {
				wait, over := context.WithTimeout(ctx, time.Minute)
				if roused, err := bed.Wait(wait); err == nil && !roused && ctx.Err() == nil {
					t.Error("nobody has roused it for a minute")
				}
				over()
			}
			bed.GetUp(ctx)
		}
	})
	const rounds, senders = 100, 2
	for round := range rounds {
		var sending sync.WaitGroup
		for s := range senders {
			chance := rand.New(rand.NewPCG(uint64(round), uint64(s)))
			sending.Go(func() {
				err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
					if _, err := tx.Exec(ctx, "select pg_sleep($1::float8)", chance.Float64()/100); err != nil {
						return err
					}
					if _, err := pgmq.New(tx).Send(ctx, "in", pgmq.Outgoing{Body: []byte(`{}`)}, 0); err != nil {
						return err
					}
					_, err := tx.Exec(ctx, "select pg_sleep($1::float8)", chance.Float64()/100)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		sending.Wait()
		require.Eventually(t, func() bool { return t.Failed() || found.Load() == int64(senders*(round+1)) }, 2*time.Minute, time.Millisecond)
		require.False(t, t.Failed())
	}
}

// TestACancelledSenderLeavesTheBed: a statement that is cancelled while it checks whether
// somebody rests does not leave the lock with its session: otherwise nobody could lie
// down any more, and everybody would notify.
func TestACancelledSenderLeavesTheBed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.exec(t, "create table sends ()")
	b.exec(t, "create trigger tasker_rouse after insert on sends for each statement execute function tasker_rouse()")
	conn, err := b.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	const cancels = 100 // one in five would hit the gap between the two, if there were one
	for range cancels {
		asked := make(chan error, 1)
		go func() {
			_, err := conn.Exec(t.Context(), "do 'begin loop insert into sends select where false; end loop; end'")
			asked <- err
		}()
		for running := true; running; {
			b.exec(t, "select pg_cancel_backend($1)", conn.Conn().PgConn().PID())
			select {
			case err := <-asked:
				requireCode(t, "57014", err, "send until it is cancelled")
				running = false
			default:
			}
		}
		require.Zero(t, one[int](t, b, "select count(*) from pg_locks where locktype = 'advisory' and pid = $1", conn.Conn().PgConn().PID()))
	}
}
