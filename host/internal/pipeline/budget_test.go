package pipeline

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBudget(t *testing.T) {
	t.Parallel()
	b := newBudget(100, 10)
	for range 30 {
		b.note(1, 1)
	}
	var greedy, modest usage
	room := func(ctx context.Context, u *usage) bool {
		steps, taken := b.await(ctx, u, 1)
		b.give(u, taken)
		return steps > 0
	}
	require.True(t, room(t.Context(), &greedy))
	b.take(&greedy, 120)
	require.True(t, b.spent(&greedy))
	require.True(t, room(t.Context(), &modest), "a namespace with little in memory never waits")
	b.take(&modest, 10)
	require.True(t, b.spent(&modest))

	waits := make(chan bool)
	for _, u := range []*usage{&greedy, &modest} {
		go func() { waits <- room(t.Context(), u) }()
	}
	for b.waiting.Load() < 2 {
		select {
		case <-waits:
			t.Fatal("there is no room")
		default:
		}
	}
	b.give(&modest, 1)
	require.True(t, <-waits, "the modest one continues")
	select {
	case <-waits:
		t.Fatal("there is no room for the greedy one")
	default:
	}
	b.give(&greedy, 50)
	require.True(t, <-waits)

	b.take(&greedy, 50)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.False(t, room(ended, &greedy))
	require.Zero(t, b.waiting.Load())
}

// Memory is reserved before it is read: if many find room at once, they do not all read.
func TestBudgetIsTakenAhead(t *testing.T) {
	t.Parallel()
	b := newBudget(4*firstMean, 0)
	var u usage
	steps, taken := b.await(t.Context(), &u, 3)
	require.Equal(t, []int{3, 3 * firstMean}, []int{steps, taken})
	steps, _ = b.await(t.Context(), &u, 100)
	require.Equal(t, readAtOnce/firstMean, steps)
	require.True(t, b.spent(&u))
}

func TestBatchesHaveFewLargeItems(t *testing.T) {
	t.Parallel()
	b := newBatcher((&lanes{}).line(), func(n int) int { return n })
	b.add(batchBytes/2, batchBytes/2, 1, 2*batchBytes, 3, 4)
	for _, want := range [][]int{{batchBytes / 2, batchBytes / 2}, {1}, {2 * batchBytes}, {3, 4}} {
		<-b.ready
		require.Equal(t, want, b.take(10))
		b.done()
	}
	require.Zero(t, b.len())
}
