package core

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/health"
)

// TestAHostAtRestIsWell: that it rarely asks the database is not a fault.
func TestAHostAtRestIsWell(t *testing.T) {
	t.Parallel()
	b := start(t, "[orchestration]\nrest_after = \"50ms\"\nheartbeat = \"400ms\"\nsweep_interval = \"100ms\"\n")
	b.eventually(t, "it has been resting for a while", func() bool {
		return b.Engine.Resting() && time.Since(b.Engine.LastHeartbeat()) > time.Second
	})
	require.Equal(t, fine, b.lookAtDatabase(t.Context(), health.View{}))
	require.Equal(t, fine, b.lookAtLoops(t.Context(), health.View{}))
	for _, c := range b.answers.Ready(t.Context()).Checks {
		require.True(t, c.OK, c)
	}
}

func TestLooksAtRestAreSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rests, looks, finds := true, 0, health.Degraded
		look := unlessResting(func() bool { return rests }, func(context.Context, health.View) []health.Named {
			looks++
			return []health.Named{{Finding: health.Finding{Status: finds}}}
		})
		after := func(d time.Duration) int {
			<-time.After(d)
			before := looks
			look(t.Context(), health.View{})
			return looks - before
		}
		require.Equal(t, 1, after(0), "the first")
		require.Equal(t, 1, after(time.Second), "what was wrong may be fine by then")
		finds = health.Healthy
		require.Equal(t, 1, after(time.Second))
		require.Zero(t, after(time.Second))
		require.Equal(t, 1, after(resting))
		require.Zero(t, after(time.Second))
		rests = false
		require.Equal(t, 1, after(time.Second))
	})
}
