package pipeline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDueTimesForgetNoneBeforeItIsReached(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)
	var d dueTimes
	require.Equal(t, time.Hour, d.within(time.Hour, start))
	for _, s := range []int{30, 10, 20, 10} {
		d.at(start.Add(time.Duration(s) * time.Second))
	}
	require.Equal(t, 10*time.Second, d.within(time.Hour, start))
	require.Equal(t, 10*time.Second, d.within(time.Hour, start), "a wait that was ended by something else")
	require.Equal(t, time.Second, d.within(time.Second, start))
	require.False(t, d.reached(start))
	require.Zero(t, d.within(time.Hour, start.Add(11*time.Second)), "nobody has asked whether it is reached")
	require.True(t, d.reached(start.Add(10*time.Second)))
	require.False(t, d.reached(start.Add(10*time.Second)), "it has been asked and noticed")
	require.Equal(t, 10*time.Second, d.within(time.Hour, start.Add(10*time.Second)))
	require.True(t, d.reached(start.Add(time.Minute)))
	require.Equal(t, time.Hour, d.within(time.Hour, start.Add(time.Minute)))
	require.Empty(t, d.known)
}
