package e2e_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// TestHostsShareTheLoad: two hosts on one database, all tasks submitted to the
// first. Neither hoards: each runs at least a third of the steps.
func TestHostsShareTheLoad(t *testing.T) {
	t.Parallel()
	const tasks, executors = 160, 8
	dsn := pgtest.DSN(t)
	var hosts []*host
	for range 2 {
		s := newSite(t, dsn, fmt.Sprint("TASKER__EXECUTOR_POOLS__STEP_EXECUTION__MIN=", executors), fmt.Sprint("TASKER__EXECUTOR_POOLS__STEP_EXECUTION__MAX=", executors))
		s.plugins(t, pluginTable("chaos", filepath.Join(built, "chaos"), ""))
		hosts = append(hosts, s.up(t))
		applyTemplate(t, hosts[0], oneStep("sleep", "chaos.sleep", "")) // before the second starts: one that is up learns of it within ten seconds
	}
	// All tasks are there before the first one runs: of some that come one by one the
	// host that they come to would run most itself.
	_, err := hosts[0].PauseQueue(t.Context(), "e2e", client.Operator{})
	require.NoError(t, err)
	for i := range tasks {
		_, _, err := hosts[0].Submit(t.Context(), client.Submission{
			Namespace: "e2e", Name: "sleep", Context: []byte(`{"MS": 900}`), IdempotencyKey: fmt.Sprint(i),
		})
		require.NoError(t, err)
	}
	_, err = hosts[0].ResumeQueue(t.Context(), "e2e", client.Operator{})
	require.NoError(t, err)
	db := pgtest.Pool(t, dsn)
	shares := func() []int {
		rows, err := db.Query(context.WithoutCancel(t.Context()), "select count(*) from tasker_workflow_step_transitions where to_state = 'complete' group by host_id order by 1")
		require.NoError(t, err)
		all, err := pgx.CollectRows(rows, pgx.RowTo[int])
		require.NoError(t, err)
		return all
	}
	eventually(t, patience, "all steps are complete", func() bool {
		n := 0
		for _, share := range shares() {
			n += share
		}
		return n == tasks
	})
	all := shares()
	t.Logf("the hosts ran %v of %d steps", all, tasks)
	require.Len(t, all, 2)
	require.GreaterOrEqual(t, all[0], tasks/3)
	for _, h := range hosts {
		h.stop(t)
	}
}
