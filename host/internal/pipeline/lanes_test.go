package pipeline

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func signalled(b *batcher[int]) bool {
	select {
	case <-b.ready:
		return true
	default:
		return false
	}
}

// While a batch is in progress, another one goes only if it is large or late.
func TestLanes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testLanes) // where waiting ends exactly on time
}

func testLanes(t *testing.T) {
	size := func(n int) int { return n }
	b := newBatcher((&lanes{}).line(), size)
	b.add(1)
	require.True(t, signalled(b))
	require.Equal(t, []int{1}, b.take(500))

	b.add(make([]int, laneItems)...)
	require.True(t, signalled(b), "enough for a second lane")
	require.Len(t, b.take(500), laneItems)
	b.add(make([]int, 2*laneItems-1)...)
	require.False(t, signalled(b), "too few for a third")
	require.Empty(t, b.take(500))
	b.add(0)
	require.True(t, signalled(b))
	require.Len(t, b.take(laneItems+1), laneItems+1)
	require.False(t, signalled(b), "too few are left for a fourth")
	b.done()
	b.done()
	b.done()
	require.True(t, signalled(b), "nothing is in progress")
	require.Len(t, b.take(500), laneItems-1)

	b.add(batchBytes)
	require.True(t, signalled(b), "enough bytes for a second lane")
	require.Len(t, b.take(500), 1)

	b.add(2)
	require.Empty(t, b.take(500))
	<-b.ready // the calls in progress take long
	require.Equal(t, []int{2}, b.take(500))
	b.done()
	b.done()
	b.done()
	require.False(t, signalled(b), "nothing waits")
}

// A line waits for the batches of another one as for its own.
func TestLinesShareTheirLanes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testSharedLanes)
}

func testSharedLanes(t *testing.T) {
	var l lanes
	size := func(n int) int { return n }
	a, b := newBatcher(l.line(), size), newBatcher(l.line(), size)
	a.add(1)
	b.add(1)
	require.True(t, signalled(a))
	require.True(t, signalled(b), "nothing is in progress: the first one goes")
	require.Len(t, a.take(500), 1)
	require.Empty(t, b.take(500), "the other was faster")
	<-b.ready // and takes long
	a.done()
	require.True(t, signalled(b), "the other one has ended")
	require.Len(t, b.take(500), 1)

	a.add(make([]int, laneItems)...)
	require.True(t, signalled(a), "enough to go in parallel with another line's")
	require.Len(t, a.take(500), laneItems)
	b.done()
	b.add(1)
	require.Empty(t, b.take(500))
	<-b.ready // the other takes long
	require.Len(t, b.take(500), 1)
	a.add(make([]int, laneItems)...)
	require.True(t, signalled(a), "in parallel with one of its own and one of another")
	a.done()
	b.done()
}
