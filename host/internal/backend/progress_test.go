package backend_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/backend"
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// What an outside worker reports is shown as well, whatever it is.
func TestProgressOfOutsideWorkers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, `namespace: outside
name: one
version: 1.0.0
steps:
  - {name: alone, handler: elsewhere.run}
`)
	made, _, err := b.Submit(t.Context(), api.Submission{Namespace: "outside", Name: "one", Version: "1.0.0", Context: []byte(`{}`)})
	require.NoError(t, err)
	task, err := vocab.ParseUUID(made.UUID)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `create table claimed as
		select step_uuid, lease_id from tasker_worker_claim('outside', 'w-1', array['elsewhere.run'], 1, interval '1 hour')`)
	require.NoError(t, err)
	for told, want := range map[string]readmodel.StepProgress{
		`{"percent": 40, "note": "12 of 30"}`: {Percent: 40, Note: "12 of 30"},
		`55.9`:                                {Percent: 55},
		`"half way"`:                          {Note: "half way"},
		`{"percent": 1e9}`:                    {Percent: 100},
		`-3`:                                  {},
		`[1, 2]`:                              {Note: "[1, 2]"},
		`{"done": 3}`:                         {Note: `{"done": 3}`},
		`"` + strings.Repeat("x", 999) + `"`:  {Note: payload.Text(strings.Repeat("x", 999), 200)},
	} {
		var verdict string
		require.NoError(t, b.pool.QueryRow(t.Context(), `select h.verdict from claimed c, tasker_worker_heartbeat(c.step_uuid, c.lease_id, $1) h`, told).Scan(&verdict))
		require.Equal(t, "ok", verdict)
		snap, err := b.Watch(t.Context(), task, "")
		require.NoError(t, err)
		require.Equal(t, []readmodel.RunningStep{{Number: 0, Step: "alone", StepProgress: want}}, snap.Running, told)
		steps, err := b.Steps(t.Context(), task, api.PageQuery{After: -1, Limit: 10})
		require.NoError(t, err)
		require.Equal(t, &want, steps[0].Progress, told)
		step, err := b.Step(t.Context(), api.StepID{Task: task, Number: 0})
		require.NoError(t, err)
		require.Equal(t, &want, step.Progress, told)
	}
	_, err = b.CancelTask(t.Context(), task, api.Operator{})
	require.NoError(t, err)
	steps, err := b.Steps(t.Context(), task, api.PageQuery{After: -1, Limit: 10})
	require.NoError(t, err)
	require.Nil(t, steps[0].Progress)
}

// What a running step reports is shown to those who watch the task, and forgotten with
// the attempt.
func TestProgressOfRunningSteps(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, pairYAML)
	task := b.submit(t)
	half := readmodel.StepProgress{Percent: 50, Note: "half way"}
	snap := b.watchUntil(t, task, func(s readmodel.Snapshot) bool {
		return len(s.Running) == 1 && s.Running[0].Step == "second"
	})
	require.Equal(t, []readmodel.RunningStep{{Number: 1, Step: "second", StepProgress: half}}, snap.Running)
	without := snap
	without.Running = nil
	require.NotEqual(t, snap.Revision(), without.Revision(), "a change of the progress alone is an event")

	steps, err := b.Steps(t.Context(), task, api.PageQuery{After: -1, Limit: 10})
	require.NoError(t, err)
	require.Len(t, steps, 2)
	require.Nil(t, steps[0].Progress)
	require.Equal(t, &half, steps[1].Progress)

	close(b.handlers.hold)
	end := b.watchUntil(t, task, func(s readmodel.Snapshot) bool { return s.Settled() })
	require.Empty(t, end.Running)
	b.handlers.calls.Wait()
	require.Eventually(t, func() bool { return len(b.engine.Progress(task)) == 0 }, time.Minute, time.Millisecond,
		"what comes after the end is dropped")
}

// elsewhere is the engine of another host, which runs none of the steps.
type elsewhere struct{ backend.Engine }

func (elsewhere) Progress(vocab.UUID) []pipeline.StepProgress { return nil }

// What a step reports can be seen from every host until the step ends.
func TestProgressIsSeenFromOtherHosts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	parts := b.parts
	parts.Engine = elsewhere{parts.Engine}
	other := &bundle{Backend: backend.New(parts, backend.Config{Heartbeat: time.Hour})}
	b.apply(t, pairYAML)
	task := b.submit(t)
	half := readmodel.StepProgress{Percent: 50, Note: "half way"}
	snap := other.watchUntil(t, task, func(s readmodel.Snapshot) bool {
		return len(s.Running) == 1 && s.Running[0].Step == "second" // the first may still report something late
	})
	require.Equal(t, []readmodel.RunningStep{{Number: 1, Step: "second", StepProgress: half}}, snap.Running)
	steps, err := other.Steps(t.Context(), task, api.PageQuery{After: -1, Limit: 10})
	require.NoError(t, err)
	require.Nil(t, steps[0].Progress)
	require.Equal(t, &half, steps[1].Progress)
	here, err := b.Watch(t.Context(), task, "")
	require.NoError(t, err)
	require.Equal(t, snap.Running, here.Running, "once")

	close(b.handlers.hold)
	end := other.watchUntil(t, task, func(s readmodel.Snapshot) bool { return s.Settled() })
	require.Empty(t, end.Running)
	require.Eventually(t, func() bool {
		var left int
		require.NoError(t, b.pool.QueryRow(t.Context(), "select count(*) from tasker_step_progress").Scan(&left))
		return left == 0
	}, time.Minute, 10*time.Millisecond, "nothing is left of it")
}
