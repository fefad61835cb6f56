package e2e_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// TestBatchTooLongForAStatement: on a slow database a full batch may take longer
// than one statement may. It must get through all the same, in parts.
func TestBatchTooLongForAStatement(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	s := newSite(t, dsn, "TASKER__DATABASE__STATEMENT_TIMEOUT=300ms", "TASKER__ENGINE__COMMITTERS=1")
	s.plugins(t, pluginTable("arithmetic", filepath.Join(built, "arithmetic"), ""))
	h := s.up(t)
	applyTemplate(t, h, wide(300))
	const tasks = 60
	var wg sync.WaitGroup
	errs := make(chan error, tasks)
	for i := range tasks {
		wg.Go(func() {
			_, _, err := h.Submit(t.Context(), client.Submission{
				Namespace: "e2e", Name: "wide", Context: []byte(`{"even_number": 2}`), IdempotencyKey: fmt.Sprint(i),
			})
			errs <- err
		})
	}
	wg.Wait()
	for range tasks {
		require.NoError(t, <-errs)
	}
	db := pgtest.Pool(t, dsn)
	eventually(t, patience, "all tasks are complete", func() bool {
		return column[int](t, db, "select count(*)::integer from tasker_tasks t where t.state = 'complete'")[0] == tasks
	})
	h.stop(t)
	requireClean(t, h.log.String())
}

// TestDeadHostWithManySteps: giving its steps back may take longer than one
// statement may. They must come back all the same.
func TestDeadHostWithManySteps(t *testing.T) {
	t.Parallel()
	g := newGround(t, pace{2000, 3000}, "TASKER__DATABASE__STATEMENT_TIMEOUT=200ms")
	s := newSubmitter(g.sites[0].client(t))
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
	eventually(t, patience, "the steps of the dead host go on", func() bool { return g.stranded(t.Context(), hit) == 0 })
	g.rest(t, s).require(t)
	g.depart(t)
}

// wide is a template with many steps that depend on nothing.
func wide(steps int) string {
	y := "namespace: e2e\nname: wide\nversion: 1.0.0\nsteps:\n"
	for i := range steps {
		y += fmt.Sprintf("  - {name: s%d, handler: math.square_input}\n", i)
	}
	return y
}
