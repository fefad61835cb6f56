// Package lifecycletest contains the test that every lifecycle.Service must pass. It is
// for tests only.
package lifecycletest

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/lifecycle"
)

// Stress starts and stops a service from several goroutines at once, many times over, and
// leaves it stopped. Run it with the race detector. Errors of Start are allowed, because
// a Stop may overtake it; errors of Stop are not, and after the last one the service must
// start and stop once more.
func Stress(t testing.TB, service lifecycle.Service) {
	t.Helper()
	const goroutines, rounds = 8, 25
	ctx := context.WithoutCancel(t.Context())
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range rounds {
				_ = service.Start(ctx)
				if err := service.Stop(ctx); err != nil {
					t.Errorf("stop: %v", err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, service.Stop(ctx), "stop when not running")
	require.NoError(t, service.Start(ctx), "start again")
	require.NoError(t, service.Start(ctx), "start when running")
	require.NoError(t, service.Stop(ctx), "stop at the end")
}
