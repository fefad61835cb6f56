package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/plugins/test/ledger/book"
)

// TestBatchTooLongForAStatement: on a slow database a full batch may take longer
// than one statement may. It must get through all the same, in parts.
func TestBatchTooLongForAStatement(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	slowed(t, dsn, "tasker_workflow_steps", "true", time.Millisecond) // 0.3 s for a task
	s := newSite(t, dsn, "TASKER__DATABASE__STATEMENT_TIMEOUT=2s", "TASKER__EXECUTOR_POOLS__TASK_FINALIZER__MAX=1", "TASKER__EXECUTOR_POOLS__TASK_FINALIZER__MIN=1")
	s.plugins(t, pluginTable("arithmetic", filepath.Join(built, "arithmetic"), ""))
	h := s.up(t)
	applyTemplate(t, h, wide(300))
	const tasks = 40
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	var refused [tasks]error
	for i := range tasks {
		wg.Go(func() { refused[i] = insist(ctx, h, fmt.Sprint(i)) })
	}
	wg.Wait()
	for _, err := range refused {
		require.NoError(t, err)
	}
	db := pgtest.Pool(t, dsn)
	eventually(t, patience, "all tasks are complete", func() bool {
		return column[int](t, db, "select count(*)::integer from tasker_tasks t where t.state = 'complete'")[0] == tasks
	})
	h.stop(t)
	requireClean(t, h.log.String())
	require.Contains(t, h.log.String(), "it is halved")
}

// insist submits a task until it is taken: a host whose database is slow says
// that it has too much to do.
func insist(ctx context.Context, h *host, key string) error {
	for {
		_, _, err := h.Submit(ctx, client.Submission{
			Namespace: "e2e", Name: "wide", Context: []byte(`{"even_number": 2}`), IdempotencyKey: key,
		})
		if e, answered := errors.AsType[*client.Error](err); !answered || e.Status != http.StatusServiceUnavailable {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// TestDeadHostWithManySteps: giving its steps back may take longer than one
// statement may. They must come back all the same.
func TestDeadHostWithManySteps(t *testing.T) {
	t.Parallel()
	g := newGround(t, pace{100, 300}, "TASKER__EXECUTOR_POOLS__STEP_EXECUTION__MIN=1000")
	slowed(t, g.cluster.DSN(), "tasker_workflow_step_transitions", "n.from_state = 'in_progress' and n.to_state = 'enqueued'", 10*time.Millisecond)
	s := newSubmitter(g.sites[0].client(t))
	open, err := book.Shut(g.book) // however slow the machine is, they run at one time
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				s.submit(t.Context())
			}
		})
	}
	wg.Wait()
	eventually(t, patience, "the host has its hands full", func() bool { return len(g.inFlight(t, g.hosts[0].pid())) >= 500 })
	hit := g.inFlight(t, g.hosts[0].pid())
	g.hosts[0].kill(t)
	g.gone = append(g.gone, g.hosts[0])
	g.hosts[0] = g.sites[0].start(t)
	require.NoError(t, open())
	eventually(t, patience, "the steps of the dead host go on", func() bool { return g.stranded(t.Context(), hit) == 0 })
	g.rest(t, s).require(t)
	g.depart(t)
}

// slowed makes every statement that inserts rows of a kind into a table last longer,
// by so much for each: how fast the machine is does not decide what takes too long.
func slowed(t *testing.T, dsn, table, kind string, each time.Duration) {
	t.Helper()
	_, err := pgtest.Pool(t, dsn).Exec(t.Context(), fmt.Sprintf(`
create function slowed() returns trigger language plpgsql as $$
begin
  perform pg_sleep(%f * (select count(*) from n where %s));
  return null;
end $$;
create trigger slowed after insert on %s referencing new table as n for each statement execute function slowed()`,
		each.Seconds(), kind, table), pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
}

// wide is a template with many steps that depend on nothing.
func wide(steps int) string {
	y := "namespace: e2e\nname: wide\nversion: 1.0.0\nsteps:\n"
	for i := range steps {
		y += fmt.Sprintf("  - {name: s%d, handler: math.square_input}\n", i)
	}
	return y
}
