package cli_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const firstStep = "019ca9d2-7c00-7000-8000-000100000001"

func TestRepairCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.submit(t)
	b.FailStep(first, "boom")
	b.golden(t, "step_show", b.run(t, "step", "show", firstStep))
	b.golden(t, "task_explain", b.run(t, "task", "explain", first))
	b.golden(t, "task_explain_json", b.run(t, "task", "explain", first, "--json"))
	b.golden(t, "step_explain", b.run(t, "step", "explain", firstStep))
	b.golden(t, "step_show_json", b.run(t, "step", "show", first+"/linear_step_1", "--json"))
	b.golden(t, "step_retry", b.run(t, "step", "retry", first+"/linear_step_1", "--reason", "the disk is back"))
	b.FailStep(first, "boom again")
	b.golden(t, "step_show_again", b.run(t, "step", "show", firstStep))
	b.golden(t, "step_skip", b.run(t, "step", "skip", firstStep))
	b.golden(t, "step_resolve", b.run(t, "step", "resolve", firstStep, "--result", `{"n": 340282366920938463463374607431768211456}`))
	b.golden(t, "step_show_resolved", b.run(t, "step", "show", firstStep))
	b.FailStep(first, "boom")
	b.golden(t, "task_retry", b.run(t, "task", "retry", first))
	b.golden(t, "task_retry_refused", b.run(t, "task", "retry", first))
	b.golden(t, "task_resolve", b.run(t, "task", "resolve", first, "--json"))
	b.golden(t, "task_resolve_refused", b.run(t, "task", "resolve", first))
}

func TestRepairArguments(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.submit(t)
	for _, c := range []struct {
		name string
		args []string
		code int
	}{
		{"step_missing", []string{"step", "retry"}, 2},
		{"step_bad", []string{"step", "retry", "7"}, 2},
		{"step_is_a_task", []string{"step", "show", first}, 2},
		{"step_named_twice", []string{"step", "show", firstStep + "/x"}, 2},
		{"step_unknown_name", []string{"step", "show", first + "/x"}, 4},
		{"step_unknown_name_json", []string{"step", "show", first + "/x", "--json"}, 4},
		{"step_unknown", []string{"step", "show", "019ca9d2-7c00-7000-8000-0001000fffff"}, 4},
		{"step_bad_result", []string{"step", "resolve", firstStep, "--result", "{"}, 1},
		{"step_not_failed", []string{"step", "resolve", firstStep}, 6},
		{"task_not_failed", []string{"task", "retry", first}, 6},
	} {
		r := b.run(t, c.args...)
		require.Equal(t, c.code, r.code, c.name+r.err)
		require.Empty(t, r.out, c.name)
		b.golden(t, "error_"+c.name, r)
	}
}

func TestGraphs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.submit(t)
	b.Finish(first, "1")
	b.FailStep(first, `no "gateway" <at> all, and this goes on and on`)
	b.golden(t, "graph_task", b.run(t, "task", "show", first, "--graph"))
	b.golden(t, "graph_task_dot", b.run(t, "task", "show", first, "--dot"))
	b.golden(t, "graph_task_mermaid", b.run(t, "task", "show", first, "--mermaid"))
	b.golden(t, "graph_template", b.run(t, "template", "graph", linear))
	b.golden(t, "error_graph_twice", b.run(t, "task", "show", first, "--graph", "--dot"))
	b.terminal = true
	require.Contains(t, b.run(t, "task", "show", first, "--graph").out, "\x1b[31merror 2s\x1b[0m")
}
