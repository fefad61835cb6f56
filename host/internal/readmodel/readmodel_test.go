package readmodel_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func TestProgressCountsEveryStateOnce(t *testing.T) {
	t.Parallel()
	counts := map[vocab.StepState]int{}
	for i, s := range vocab.StepStates {
		counts[s] = i + 1
	}
	p := readmodel.NewProgress(counts)
	require.Equal(t, 28, p.Total)
	require.Equal(t, 4+7, p.Completed, "complete and resolved_manually")
	require.InDelta(t, 39.28, p.Percentage, 0.001)

	require.Zero(t, readmodel.NewProgress(nil).Percentage)
	full := readmodel.NewProgress(map[vocab.StepState]int{vocab.StepComplete: 7})
	require.InDelta(t, 100, full.Percentage, 0)
	almost := readmodel.NewProgress(map[vocab.StepState]int{vocab.StepComplete: 999_999, vocab.StepPending: 1})
	require.Less(t, almost.Percentage, 100.0, "an unfinished task never shows 100")
}

func TestRevisionFollowsContent(t *testing.T) {
	t.Parallel()
	a := readmodel.Snapshot{State: vocab.TaskInProgress, Progress: readmodel.Progress{Total: 4, Completed: 1}}
	b := a
	require.Equal(t, a.Revision(), b.Revision())
	b.Progress.Completed = 2
	require.NotEqual(t, a.Revision(), b.Revision())
	b = a
	b.State = vocab.TaskCancelled
	require.NotEqual(t, a.Revision(), b.Revision())
	require.True(t, b.Settled())
	require.False(t, a.Settled())
}

func TestDoctorReportTakesTheWorst(t *testing.T) {
	t.Parallel()
	r := readmodel.NewDoctorReport()
	require.Equal(t, readmodel.DoctorOK, r.Status)
	r.Add(readmodel.DoctorCheck{Name: "a", Status: readmodel.DoctorFail}, readmodel.DoctorCheck{Name: "b", Status: readmodel.DoctorWarn})
	require.Equal(t, readmodel.DoctorFail, r.Status)
}

func TestResultsKeepEveryDigit(t *testing.T) {
	t.Parallel()
	const exact = `{"value":340282366920938463463374607431768211456,"price":1.10,"e":1e400}`
	out, err := json.Marshal(readmodel.Step{Result: json.RawMessage(exact)})
	require.NoError(t, err)
	require.Contains(t, string(out), exact)
	var back readmodel.Step
	require.NoError(t, json.Unmarshal(out, &back))
	require.Equal(t, exact, string(back.Result))
}
