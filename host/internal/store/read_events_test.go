package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// span returns everything up to now.
func (b *bed) span(t testing.TB, limit int) store.EventSpan {
	t.Helper()
	for { // transactions of other tests on the server hold the horizon back
		next := one[int64](t, b, `select pg_current_xact_id()::text::bigint`)
		mark, err := b.store.EventMark(t.Context())
		require.NoError(t, err)
		if mark.Horizon >= uint64(next) {
			return store.EventSpan{To: mark.Horizon, Since: mark.At.Add(-time.Hour), Next: mark.Next, Limit: limit}
		}
	}
}

// The events of a task are its history without the first entries, in the same order.
func TestEventsAreTheHistory(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	host := b.host(t)
	p := b.mustPlan(t, diamond()...)
	g := b.grant(host, 10)
	task, leases := b.create(t, g, p)
	for len(leases) > 0 {
		leases = b.settle(t, g, vocab.OutcomeSuccess, leases...).Leases
	}
	_, failing := b.create(t, g, p)
	b.settle(t, g, vocab.OutcomePermanent, failing...)

	whole := b.span(t, 1000)
	events, upTo, err := b.store.ReadEvents(t.Context(), whole)
	require.NoError(t, err)
	require.Equal(t, whole.To, upTo)
	history, err := b.store.ReadHistory(t.Context(), task, -1, 1000)
	require.NoError(t, err)
	type move struct{ step, from, to string }
	var got, want []move
	errors := 0
	for _, e := range events {
		if e.TaskUUID == task.String() {
			require.Equal(t, namespace, e.Namespace)
			require.NotEmpty(t, e.Host)
			got = append(got, move{e.Step, e.From, e.To})
		}
		if e.Kind == readmodel.EventStep && e.To == "error" {
			require.NotEmpty(t, e.Message)
			errors++
		}
	}
	for _, h := range history {
		if h.From != "" {
			want = append(want, move{h.Step, h.From, h.To})
		}
	}
	require.Equal(t, want, got)
	require.Equal(t, 1, errors)

	// Reading in pieces gives the same, whatever their size.
	for _, limit := range []int{1, 3, 7} {
		var pieces []readmodel.Event
		for piece := whole; piece.From < whole.To; {
			piece.Limit = limit
			some, upTo, err := b.store.ReadEvents(t.Context(), piece)
			require.NoError(t, err)
			require.Greater(t, upTo, piece.From)
			pieces, piece.From = append(pieces, some...), upTo
		}
		require.ElementsMatch(t, events, pieces)
	}
}

// What was written by transactions that began after the mark is not read, even if they
// have ended.
func TestEventsEndAtTheirSpan(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	span := b.span(t, 1000)
	before, _, err := b.store.ReadEvents(t.Context(), span)
	require.NoError(t, err)
	b.host(t)
	require.NoError(t, b.store.RecordHealth(t.Context(), "box", []store.HealthChange{
		{At: time.Now(), Check: "database", From: "healthy", To: "unhealthy", Message: "gone"},
		{At: time.Now(), Check: "database", From: "unhealthy", To: "healthy"},
	}))
	after, _, err := b.store.ReadEvents(t.Context(), span)
	require.NoError(t, err)
	require.Equal(t, before, after)
	next := b.span(t, 1000)
	next.From = span.To
	added, _, err := b.store.ReadEvents(t.Context(), next)
	require.NoError(t, err)
	kinds := map[string]int{}
	for _, e := range added {
		kinds[e.Kind]++
	}
	require.Equal(t, map[string]int{"host": 1, "health": 2}, kinds)
}

// Plugins' checks may have any name and any message: what PostgreSQL does not accept must
// not keep the others from being written.
func TestHealthInWordsOfPlugins(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	span := b.span(t, 1000)
	require.NoError(t, b.store.RecordHealth(t.Context(), "box", []store.HealthChange{
		{At: time.Now(), Check: "law/a\x00b", From: "healthy", To: "degraded", Message: "c\x00\xffd"},
		{At: time.Now(), Check: "database", From: "unhealthy", To: "healthy"},
	}))
	next := b.span(t, 1000)
	next.From = span.To
	events, _, err := b.store.ReadEvents(t.Context(), next)
	require.NoError(t, err)
	require.Len(t, events, 2)
}
