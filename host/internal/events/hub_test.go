package events_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/events"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// follower reads events from two hosts in turn, and switches at any moment: it resumes
// from the id of the last event it received, or from the position of the stream.
type follower struct {
	t     *testing.T
	hubs  []*events.Hub
	after *events.Cursor
	seen  []string
	turns int
}

// turn takes up to most events from one host.
func (f *follower) turn(ctx context.Context, most int) {
	f.t.Helper()
	sub, err := f.hubs[f.turns%len(f.hubs)].Subscribe(ctx, f.after, func(e *readmodel.Event) bool { return e.Kind == readmodel.EventAudit })
	require.NoError(f.t, err)
	defer sub.Close()
	f.turns++
	for taken := 0; taken < most; {
		wait, cancel := context.WithTimeout(ctx, 40*time.Millisecond)
		items, err := sub.Next(wait)
		cancel()
		if err != nil {
			require.ErrorIs(f.t, err, context.DeadlineExceeded)
			f.after = new(sub.Place())
			return
		}
		for _, item := range items[:min(len(items), most-taken)] {
			f.seen = append(f.seen, item.Event.Subject)
			f.after = cursor(f.t, item)
			taken++
		}
	}
}

// Overlapping transactions, savepoints, rollbacks, two hosts, batches smaller than the
// number of events, and a client that is disconnected all the time: each event arrives
// once.
func TestResumeNeitherLosesNorRepeats(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	f := &follower{t: t}
	for range 2 {
		h, _, _ := hub(t, pool, events.Config{Batch: 7})
		f.hubs = append(f.hubs, h)
	}
	start, err := f.hubs[0].Subscribe(t.Context(), nil, everything)
	require.NoError(t, err)
	f.after = new(start.Place())
	start.Close()

	type outcome struct {
		subjects []string
		err      error
	}
	done := make(chan outcome, 1)
	go func() {
		subjects, err := writers(t.Context(), pool, 4, 40)
		done <- outcome{subjects, err}
	}()
	var wrote outcome
	for running := true; running; {
		select {
		case wrote = <-done:
			running = false
		default:
			f.turn(t.Context(), 1+f.turns%11)
		}
	}
	require.NoError(t, wrote.err)
	require.NotEmpty(t, wrote.subjects)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(f.seen) < len(wrote.subjects) && ctx.Err() == nil {
		f.turn(ctx, 50)
	}
	f.turn(t.Context(), 1) // nothing more arrives
	require.Greater(t, f.turns, 10)
	slices.Sort(f.seen)
	slices.Sort(wrote.subjects)
	require.Equal(t, wrote.subjects, f.seen)
}

// An open transaction holds back those that began after it, and its events come before
// theirs.
func TestOpenTransactionHoldsEventsUp(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	h, _, _ := hub(t, pool, events.Config{})
	sub, err := h.Subscribe(t.Context(), nil, everything)
	require.NoError(t, err)
	defer sub.Close()
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	require.NoError(t, audit(t.Context(), tx, "slow"))
	require.NoError(t, audit(t.Context(), pool, "quick"))
	wait, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	_, err = sub.Next(wait)
	cancel()
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, tx.Commit(t.Context()))
	var got []string
	for len(got) < 2 {
		for _, item := range next(t, sub) {
			got = append(got, item.Event.Subject)
		}
	}
	require.Equal(t, []string{"slow", "quick"}, got)
}

func TestSlowSubscriptionIsCutOff(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	h, _, reg := hub(t, pool, events.Config{Batch: 1, Queue: 3})
	slow, err := h.Subscribe(t.Context(), nil, everything)
	require.NoError(t, err)
	defer slow.Close()
	quick, err := h.Subscribe(t.Context(), nil, everything)
	require.NoError(t, err)
	defer quick.Close()
	const all = 20
	for i := range all {
		require.NoError(t, audit(t.Context(), pool, fmt.Sprint(i)))
		require.Equal(t, fmt.Sprint(i), next(t, quick)[0].Event.Subject, "others do not wait for it")
	}
	require.InDelta(t, 1, value(t, reg, "tasker_event_streams_cut_off_total"), 0)
	require.InDelta(t, 1, value(t, reg, "tasker_event_streams"), 0)

	var got []string
	for {
		items, err := slow.Next(t.Context())
		if err != nil {
			require.ErrorIs(t, err, events.ErrTooSlow)
			break
		}
		got = append(got, items[0].Event.Subject)
	}
	require.Len(t, got, 3, "what was in its queue")
	place := slow.Place()
	again, err := h.Subscribe(t.Context(), &place, everything)
	require.NoError(t, err)
	defer again.Close()
	for len(got) < all {
		for _, item := range next(t, again) {
			got = append(got, item.Event.Subject)
		}
	}
	for i, subject := range got {
		require.Equal(t, fmt.Sprint(i), subject)
	}
}

func TestNobodyListensNobodyAsks(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	h, source, reg := hub(t, pool, events.Config{})
	require.Eventually(t, func() bool { return value(t, reg, "tasker_event_streams") == 0 }, time.Minute, time.Millisecond)
	asked := source.asked.Load()
	for i := range 20 {
		require.NoError(t, audit(t.Context(), pool, fmt.Sprint(i)))
	}
	require.Equal(t, asked, source.asked.Load())
	sub, err := h.Subscribe(t.Context(), nil, everything)
	require.NoError(t, err)
	defer sub.Close()
	require.Greater(t, source.asked.Load(), asked)
	require.NoError(t, audit(t.Context(), pool, "now"))
	var last events.Item
	for last.Event == nil || last.Event.Subject != "now" { // other transactions on the server may hold the horizon back
		items := next(t, sub)
		last = items[len(items)-1]
	}
	require.JSONEq(t, fmt.Sprintf(`{"id": %q, "kind": "audit", "at": %q, "sort_key": 21, "subject": "now", "to": "done",
		"actor": "local:me", "action": "POST /v1/x", "request_id": "r"}`, last.Event.ID, last.Event.At.Format(time.RFC3339Nano)), string(last.JSON))
}

func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	h, source, _ := hub(t, pool, events.Config{})
	sub, err := h.Subscribe(t.Context(), nil, everything)
	require.NoError(t, err)
	defer sub.Close()
	away := errors.New("away")
	source.fail.Store(&away)
	require.NoError(t, audit(t.Context(), pool, "meanwhile"))
	wait, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	_, err = sub.Next(wait)
	cancel()
	require.ErrorIs(t, err, context.DeadlineExceeded, "active listeners stay")
	place := sub.Place()
	_, err = h.Subscribe(t.Context(), &events.Cursor{From: place.From + 1000, To: place.To + 1000, Since: place.Since}, everything)
	require.ErrorIs(t, err, away)
	source.fail.Store(nil)
	require.Equal(t, "meanwhile", next(t, sub)[0].Event.Subject)
}

func TestCursorsThatDoNotFit(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	h, _, _ := hub(t, pool, events.Config{Batch: 3})
	sub, err := h.Subscribe(t.Context(), nil, everything)
	require.NoError(t, err)
	defer sub.Close()
	for i := range 8 {
		require.NoError(t, audit(t.Context(), pool, fmt.Sprint(i)))
	}
	good := *cursor(t, next(t, sub)[0])
	for name, c := range map[string]struct {
		change func(*events.Cursor)
		want   error
	}{
		"of another database": {func(c *events.Cursor) { c.From += 1 << 40; c.To += 1 << 40 }, events.ErrCursor},
		"of the future":       {func(c *events.Cursor) { c.Since = c.Since.Add(time.Hour) }, events.ErrCursor},
		"of last week":        {func(c *events.Cursor) { c.Since = c.Since.Add(-7 * 24 * time.Hour) }, events.ErrExpired},
		"counts too far":      {func(c *events.Cursor) { c.Skip += 100 }, events.ErrCursor},
	} {
		bad := good
		c.change(&bad)
		other, err := h.Subscribe(t.Context(), &bad, everything)
		if err == nil {
			defer other.Close()
			_, err = other.Next(t.Context())
		}
		require.ErrorIs(t, err, c.want, name)
	}
	again, err := h.Subscribe(t.Context(), &good, everything)
	require.NoError(t, err)
	defer again.Close()
	require.NotEqual(t, good.String(), next(t, again)[0].Event.ID)
}

func TestStopEndsSubscriptions(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	h := events.New(events.Config{}, storeOf(pool), registry(), null())
	_, err := h.Subscribe(t.Context(), nil, everything)
	require.ErrorIs(t, err, events.ErrStopped)
	for range 2 { // it can run again
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		var sub *events.Subscription
		require.Eventually(t, func() bool {
			sub, err = h.Subscribe(t.Context(), nil, everything)
			return err == nil
		}, time.Minute, time.Millisecond)
		cancel()
		require.NoError(t, <-ended)
		_, err = sub.Next(t.Context())
		require.ErrorIs(t, err, events.ErrStopped)
		sub.Close()
	}
}

// Hosts that come and go cause events, heartbeats do not.
func TestHosts(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	h, _, _ := hub(t, pool, events.Config{})
	sub, err := h.Subscribe(t.Context(), nil, func(e *readmodel.Event) bool { return e.Kind == readmodel.EventHost })
	require.NoError(t, err)
	defer sub.Close()
	comeAndGo(t, pool)
	var got []string
	for len(got) < 3 {
		for _, item := range next(t, sub) {
			e := item.Event
			require.Equal(t, "box/1", e.Host)
			got = append(got, e.From+">"+e.To)
		}
	}
	require.Equal(t, []string{">startup", "startup>normal", "normal>dead"}, got)
}

func comeAndGo(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	var id int
	require.NoError(t, pool.QueryRow(t.Context(), `select tasker_register_host('box/1', 'v', 'test', 'startup', 60000)`).Scan(&id))
	for range 3 {
		_, err := pool.Exec(t.Context(), `select tasker_heartbeat($1, 'normal', '{}', 0, '{}', 0)`, id)
		require.NoError(t, err)
	}
	_, err := pool.Exec(t.Context(), `select tasker_sweep_hosts()`)
	require.NoError(t, err)
}
