package pipeline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSigns(t *testing.T) {
	t.Parallel()
	l := newLookout("in")
	signalled := func(c chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	all := func(string) bool { return true }

	l.put("a_queue")
	require.Zero(t, l.of("a_queue"), "nobody looks there")
	require.True(t, l.unseen(all).IsZero())
	l.serve([]string{"a_queue", "b_queue"})
	before := time.Now()
	l.put("a_queue")
	require.True(t, signalled(l.claim))
	require.False(t, signalled(l.inboxes["in"]))
	seen := l.of("a_queue")
	require.NotZero(t, seen.number)
	require.WithinRange(t, l.unseen(all), before, time.Now())
	require.True(t, l.unseen(func(queue string) bool { return queue == "b_queue" }).IsZero())

	l.put("a_queue")
	l.takeDown("a_queue", seen)
	require.NotZero(t, l.of("a_queue").number, "what was sent during the look may not have been seen")
	require.Equal(t, seen.since, l.of("a_queue").since, "nobody has seen the first sign yet")
	l.takeDown("a_queue", l.of("a_queue"))
	require.Zero(t, l.of("a_queue"))

	l.put("in", "b_queue")
	require.True(t, signalled(l.inboxes["in"]))
	require.True(t, signalled(l.claim))
	for _, leaves := range []interface{ Leave() }{ // after it has taken note of the sign
		&claimer{engine: &Engine{lookout: l}}, &inboxExecutor{inbox: &inbox{engine: &Engine{lookout: l}}},
	} {
		leaves.Leave()
		require.True(t, signalled(l.inboxes["in"]))
		require.True(t, signalled(l.claim))
	}
	l.takeDown("b_queue", l.of("b_queue"))
	(&claimer{engine: &Engine{lookout: l}}).Leave()
	require.False(t, signalled(l.claim))
	l.put("b_queue")
	l.serve([]string{"a_queue"})
	require.Zero(t, l.of("b_queue"), "no longer served")
	require.NotZero(t, l.of("in").number)
}

func TestQueuesOf(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"a_queue", "b_queue"}, queuesOf([]string{"a", "a", "b", "a"}, func(n string) string { return n }))
}
