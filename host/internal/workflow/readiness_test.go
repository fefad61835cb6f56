package workflow

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// statuses reads one letter per step: pending, ready to be repeated (r), waiting
// to be repeated (w), out of attempts though pending (x), enqueued, in progress
// (i), complete after a failure, manually resolved, failed, cancelled (k).
func statuses(t require.TestingT, letters string) []StepStatus {
	out := make([]StepStatus, 0, len(letters))
	for _, l := range letters {
		s, known := map[rune]StepStatus{
			'p': {State: vocab.StepPending},
			'r': {State: vocab.StepPending, Attempts: 1, DueAt: now},
			'w': {State: vocab.StepPending, Attempts: 1, DueAt: now.Add(time.Microsecond)},
			'x': {State: vocab.StepPending, Attempts: 3},
			'e': {State: vocab.StepEnqueued},
			'i': {State: vocab.StepInProgress},
			'c': {State: vocab.StepComplete, Attempts: 1},
			'm': {State: vocab.StepResolvedManually, Attempts: 3},
			'f': {State: vocab.StepError, Attempts: 3},
			'k': {State: vocab.StepCancelled},
		}[l]
		require.True(t, known)
		out = append(out, s)
	}
	return out
}

// The truth table of the package comment, on a diamond (0 → 1, 2 → 3).
func TestContext(t *testing.T) {
	t.Parallel()
	plan := graphPlan(t, [][]int{nil, {0}, {0}, {1, 2}})
	for letters, want := range map[string]ExecutionContext{
		"pppp": {4, 4, 0, 0, 0, 0, 1, HasReadySteps, ExecuteReadySteps, 0, Healthy},
		"eppp": {4, 3, 1, 0, 0, 0, 0, Processing, WaitForCompletion, 0, Healthy},
		"ippp": {4, 3, 0, 1, 0, 0, 0, Processing, WaitForCompletion, 0, Healthy},
		"cppp": {4, 3, 0, 0, 1, 0, 2, HasReadySteps, ExecuteReadySteps, 25, Healthy},
		"cipp": {4, 2, 0, 1, 1, 0, 1, HasReadySteps, ExecuteReadySteps, 25, Healthy},
		"ciep": {4, 1, 1, 1, 1, 0, 0, Processing, WaitForCompletion, 25, Healthy},
		"ccpp": {4, 2, 0, 0, 2, 0, 1, HasReadySteps, ExecuteReadySteps, 50, Healthy},
		"cccp": {4, 1, 0, 0, 3, 0, 1, HasReadySteps, ExecuteReadySteps, 75, Healthy},
		"cmcp": {4, 1, 0, 0, 3, 0, 1, HasReadySteps, ExecuteReadySteps, 75, Healthy},
		"cccc": {4, 0, 0, 0, 4, 0, 0, AllComplete, FinalizeTask, 100, Healthy},
		"mmmm": {4, 0, 0, 0, 4, 0, 0, AllComplete, FinalizeTask, 100, Healthy},
		// retries
		"wppp": {4, 4, 0, 0, 0, 0, 0, WaitingForDependencies, WaitForDependencies, 0, Recovering},
		"rppp": {4, 4, 0, 0, 0, 0, 1, HasReadySteps, ExecuteReadySteps, 0, Recovering},
		"cwip": {4, 2, 0, 1, 1, 0, 0, Processing, WaitForCompletion, 25, Recovering},
		"cwcp": {4, 2, 0, 0, 2, 0, 0, WaitingForDependencies, WaitForDependencies, 50, Recovering},
		// failures: nothing below them can run, but other branches continue first
		"fppp": {4, 3, 0, 0, 0, 1, 0, BlockedByFailures, HandleFailures, 0, Blocked},
		"cfpp": {4, 2, 0, 0, 1, 1, 1, HasReadySteps, ExecuteReadySteps, 25, Blocked},
		"cfip": {4, 1, 0, 1, 1, 1, 0, Processing, WaitForCompletion, 25, Blocked},
		"cfwp": {4, 2, 0, 0, 1, 1, 0, WaitingForDependencies, WaitForDependencies, 25, Blocked},
		"cfcp": {4, 1, 0, 0, 2, 1, 0, BlockedByFailures, HandleFailures, 50, Blocked},
		"cffp": {4, 1, 0, 0, 1, 2, 0, BlockedByFailures, HandleFailures, 25, Blocked},
		"cccf": {4, 0, 0, 0, 3, 1, 0, BlockedByFailures, HandleFailures, 75, Blocked},
		// cancelled steps count in the total only
		"kppp": {4, 3, 0, 0, 0, 0, 0, BlockedByFailures, HandleFailures, 0, Blocked},
		"ckcp": {4, 1, 0, 0, 2, 0, 0, BlockedByFailures, HandleFailures, 50, Blocked},
		"kkkk": {4, 0, 0, 0, 0, 0, 0, BlockedByFailures, HandleFailures, 0, Blocked},
		// a step that may not be attempted keeps nothing waiting
		"xppp": {4, 4, 0, 0, 0, 0, 0, BlockedByFailures, HandleFailures, 0, Blocked},
	} {
		require.Equal(t, want, Context(plan, statuses(t, letters), now), letters)
	}
	require.Equal(t, ExecutionContext{
		ExecutionStatus: WaitingForDependencies, RecommendedAction: WaitForDependencies, HealthStatus: UnknownHealth,
	}, Context(&Plan{}, nil, now))
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	plan := graphPlan(t, [][]int{nil, {0}, {0}, {1, 2}})
	require.Equal(t, []StepReadiness{
		{true, false, false}, {true, true, true}, {true, true, false}, {false, true, false},
	}, Readiness(plan, statuses(t, "crwp"), now))
	require.Equal(t, []StepReadiness{
		{true, false, false}, {true, true, false}, {true, true, false}, {false, true, false},
	}, Readiness(plan, statuses(t, "meip"), now))
	require.Equal(t, []StepReadiness{
		{true, false, false}, {false, true, false}, {false, true, false}, {false, true, false},
	}, Readiness(plan, statuses(t, "fppp"), now))

	plan.Steps[0].Retry.Retryable = false
	require.True(t, Readiness(plan, statuses(t, "pppp"), now)[0].ReadyForExecution, "the first attempt is not a retry")
	require.False(t, Readiness(plan, statuses(t, "rppp"), now)[0].ReadyForExecution)
}

func TestPercentage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		part, whole int
		want        float64
	}{{0, 3, 0}, {1, 3, 33.33}, {2, 3, 66.67}, {3, 3, 100}, {1, 8, 12.5}, {1, 800, 0.13}, {1, 20_000, 0.01}, {1, 20_001, 0}, {5, 0, 0}} {
		require.InDelta(t, c.want, percentage(c.part, c.whole), 0, "%d of %d", c.part, c.whole)
	}
}

// What holds for every task.
func TestContextInvariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parents := digraph(t)
		if _, acyclic := kahn(parents); !acyclic {
			return
		}
		tmpl, err := ParseTemplate("t.yaml", []byte(graphYAML(parents)), Limits{})
		require.NoError(t, err)
		plan := &tmpl.plans[0]
		letters := make([]byte, len(parents))
		for i := range letters {
			letters[i] = rapid.SampledFrom([]byte("prwxeicmfk")).Draw(t, "step")
		}
		steps := statuses(t, string(letters))
		c := Context(plan, steps, now)
		ready := Readiness(plan, steps, now)

		of := func(state string) (n int) {
			for _, l := range letters {
				if strings.IndexByte(state, l) >= 0 {
					n++
				}
			}
			return n
		}
		require.Equal(t, len(letters), c.TotalSteps)
		require.Equal(t, of("prwx"), c.PendingSteps)
		require.Equal(t, of("cm"), c.CompletedSteps)
		require.Equal(t, of("f"), c.FailedSteps)
		moves := of("ei") > 0
		for n, r := range ready {
			if r.ReadyForExecution {
				require.Contains(t, "pr", string(letters[n]))
			}
			for _, a := range plan.Ancestors(n) {
				if r.DependenciesSatisfied && slices.Contains(plan.Steps[n].Parents, a) {
					require.True(t, steps[a].State.Satisfies())
				}
			}
			moves = moves || r.DependenciesSatisfied && strings.IndexByte("prw", letters[n]) >= 0
		}
		require.Equal(t, of("cm") == len(letters), c.ExecutionStatus == AllComplete)
		require.Equal(t, !moves && of("cm") < len(letters), c.ExecutionStatus == BlockedByFailures, "blocked exactly if nothing moves")
		require.Equal(t, c.ReadySteps > 0, c.ExecutionStatus == HasReadySteps)
		if of("fk") > 0 {
			require.Equal(t, Blocked, c.HealthStatus)
		}
	})
}
