package client_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// A client that is cut off after every few events gets each once.
func TestFollowEvents(t *testing.T) {
	t.Parallel()
	b, c := setup(t)
	const all = 9
	happen := func() { b.Happened(readmodel.Event{Kind: readmodel.EventTask, Namespace: "shop", To: "complete"}) }
	happen()
	var seen []int64
	b.TooSlow(true) // whoever has nothing to read is cut off
	err := c.FollowEvents(t.Context(), client.EventFilter{After: "e0", Kinds: []string{"task", "step"}, Namespace: "shop"}, func(e readmodel.Event) (bool, error) {
		seen = append(seen, e.SortKey)
		if len(seen)%3 != 0 {
			happen()
		} else if len(seen) < all {
			happen()
			b.TooSlow(len(seen)%2 == 0)
		}
		return len(seen) == all, nil
	})
	require.NoError(t, err)
	for i, n := range seen {
		require.EqualValues(t, i+1, n)
	}
	err = c.FollowEvents(t.Context(), client.EventFilter{After: apitest.OldEvent}, nil)
	var problem *client.Error
	require.ErrorAs(t, err, &problem)
	require.Equal(t, api.CodeEventsExpired, problem.Code)
}
