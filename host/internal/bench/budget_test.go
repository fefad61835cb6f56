package bench_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/version"
	"maps"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write what was measured to the budget")

const (
	budgetFile = "testdata/cost_budget.json"
	updateIt   = "go test -race ./host/internal/bench -run TestCost -update"
)

// cost is the cost of a step, by figure.
type cost map[string]float64

// budget is what steps may cost. The versions are those with which it was measured.
type budget struct {
	PostgreSQL int             `json:"postgresql"`
	Go         string          `json:"go"`
	Workloads  map[string]cost `json:"workloads"`
}

// tolerance is the share of its budget by which a figure may differ. Runs with and
// without the race detector, on quiet and busy machines, differed by half of that or
// less, and the number of allocations by a thousandth. Other versions of PostgreSQL
// write a little more or less, and other versions of Go allocate a little more or less:
// for them, the tolerance is multiplied by elsewhere. The race detector makes the host
// allocate up to 3.5 % more bytes, in as many pieces.
var tolerance = map[string]float64{
	"wal_bytes_per_step":       0.025,
	"commits_per_step":         0.01,
	"dead_tuples_per_step":     0.01,
	"hot_update_share":         0.03,
	"sql_calls_per_step":       0.01,
	"allocations_per_step":     0.02,
	"allocated_bytes_per_step": 0.07,
}

const elsewhere = 5

// allocations are the figures that depend on Go, not on PostgreSQL.
var allocations = []string{"allocations_per_step", "allocated_bytes_per_step"}

// compareWithBudget fails the test for every figure that is worse than its budget, or so
// much better that the budget no longer guards it.
func compareWithBudget(t *testing.T, postgres int, measured map[string]cost) {
	t.Helper()
	var b budget
	raw, err := os.ReadFile(budgetFile)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &b), budgetFile)
	if *update {
		b.PostgreSQL, b.Go = postgres, version.Lang(runtime.Version())
		for workload, c := range measured {
			if b.Workloads[workload] == nil {
				b.Workloads[workload] = cost{}
			}
			for figure, v := range c {
				b.Workloads[workload][figure] = round(v)
			}
		}
		raw, err := json.MarshalIndent(b, "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(budgetFile, append(raw, '\n'), 0o644))
		return
	}
	for _, workload := range slices.Sorted(maps.Keys(measured)) {
		t.Logf("%-10s %v", workload, measured[workload])
	}
	allowed := maps.Clone(tolerance)
	for figure := range allowed {
		if of := slices.Contains(allocations, figure); of && b.Go != version.Lang(runtime.Version()) || !of && b.PostgreSQL != postgres {
			allowed[figure] *= elsewhere
		}
	}
	for _, p := range beyond(b.Workloads, measured, allowed) {
		t.Error(p)
	}
}

// round keeps the significant digits.
func round(v float64) float64 {
	var short float64
	if _, err := fmt.Sscan(fmt.Sprintf("%.4g", v), &short); err != nil {
		return v
	}
	return short
}

// beyond lists the figures that differ too much from the budget.
func beyond(budget, measured map[string]cost, tolerance map[string]float64) (problems []string) {
	for _, workload := range slices.Sorted(maps.Keys(measured)) {
		for _, figure := range slices.Sorted(maps.Keys(measured[workload])) {
			got := measured[workload][figure]
			want, known := budget[workload][figure]
			allowed := want * tolerance[figure]
			worse := got - want
			if figure == "hot_update_share" {
				worse = -worse
			}
			switch {
			case !known:
				problems = append(problems, fmt.Sprintf("%s: %s is %.4g and has no budget: %s", workload, figure, got, updateIt))
			case worse > allowed:
				problems = append(problems, fmt.Sprintf("%s: %s is %.4g, the budget is %.4g: a step has become dearer. Find out why; "+
					"if it is worth it, raise the budget: %s", workload, figure, got, want, updateIt))
			case worse < -allowed:
				problems = append(problems, fmt.Sprintf("%s: %s is %.4g, the budget is %.4g: well done. Lower the budget, "+
					"so that it stays so: %s", workload, figure, got, want, updateIt))
			}
		}
	}
	for _, workload := range slices.Sorted(maps.Keys(budget)) {
		for _, figure := range slices.Sorted(maps.Keys(budget[workload])) {
			if _, ok := measured[workload][figure]; !ok {
				problems = append(problems, fmt.Sprintf("%s: %s has a budget and was not measured", workload, figure))
			}
		}
	}
	return problems
}

func TestBudgetNamesWhatIsDearer(t *testing.T) {
	t.Parallel()
	budget := map[string]cost{"w": {"wal_bytes_per_step": 1000, "hot_update_share": 0.5, "allocations_per_step": 10}}
	measure := func(wal, hot, allocations float64) map[string]cost {
		return map[string]cost{"w": {"wal_bytes_per_step": wal, "hot_update_share": hot, "allocations_per_step": allocations}}
	}
	require.Empty(t, beyond(budget, measure(1024, 0.496, 10.2), tolerance))
	require.Empty(t, beyond(budget, measure(976, 0.504, 9.8), tolerance))
	for _, c := range []struct {
		measured map[string]cost
		want     string
	}{
		{measure(1031, 0.5, 10), "w: wal_bytes_per_step is 1031, the budget is 1000: a step has become dearer"},
		{measure(1000, 0.48, 10), "w: hot_update_share is 0.48, the budget is 0.5: a step has become dearer"},
		{measure(1000, 0.52, 10), "w: hot_update_share is 0.52, the budget is 0.5: well done"},
		{measure(1000, 0.5, 6), "w: allocations_per_step is 6, the budget is 10: well done"},
		{map[string]cost{"w": {"hot_update_share": 0.5, "allocations_per_step": 10}}, "w: wal_bytes_per_step has a budget and was not measured"},
	} {
		problems := beyond(budget, c.measured, tolerance)
		require.Len(t, problems, 1)
		require.Contains(t, problems[0], c.want)
	}
	extra := measure(1000, 0.5, 10)
	extra["w"]["commits_per_step"] = 2
	require.Equal(t, []string{"w: commits_per_step is 2 and has no budget: " + updateIt}, beyond(budget, extra, tolerance))
}
