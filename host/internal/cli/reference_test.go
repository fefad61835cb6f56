package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/cli"
)

// The page of all commands is generated from their own descriptions.
func TestReference(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// Commands exist if the runtime can do what they need: let it do everything.
	for _, field := range reflect.ValueOf(&b.runtime).Elem().Fields() {
		if field.Kind() == reflect.Func && field.IsNil() {
			field.Set(reflect.MakeFunc(field.Type(), func([]reflect.Value) []reflect.Value { panic("the page calls nothing") }))
		}
	}
	page := cli.Reference(b.runtime)
	path := filepath.Join("..", "..", "..", "docs", "cli.md")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(page), 0o600))
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err, "run the test with -update")
	require.Equal(t, string(text), page, "docs/cli.md is out of date: go test ./host/internal/cli -run TestReference -update")
	help := b.run(t, "--help").out
	for _, code := range []int{0, 1, 2, 3, 4, 5, 6, 130} {
		require.Contains(t, page, fmt.Sprintf("\n| %d | ", code))
		require.Contains(t, strings.Join(strings.Fields(help), " "), fmt.Sprintf(" %d ", code), "the help names every exit code")
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.submit(t)
	b.submit(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"task", "show", ""}, second + "\tlinear_workflow/mathematical_sequence pending\n" + first + "\tlinear_workflow/mathematical_sequence pending\n:4\n"},
		{[]string{"task", "show", first, ""}, ":4\n"},
		{[]string{"task", "cancel", first, "019ca9d2-7c00-7000-8000-0002"}, second + "\tlinear_workflow/mathematical_sequence pending\n:4\n"},
		{[]string{"step", "retry", first + "/linear_step_2"}, first + "/linear_step_2\tpending\n:4\n"},
		{[]string{"template", "graph", "lin"}, linear + "@1.0.0\n:4\n"},
		{[]string{"queue", "pause", ""}, "linear_workflow\n:4\n"},
		{[]string{"pool", "set", "step_execution.l"}, "step_execution.linear_workflow\n:4\n"},
		{[]string{"plugin", "explain", "m"}, "math\tserving\n:4\n"},
		{[]string{"plugin", "swap", "handler/"}, "handler/math\tserving\n:4\n"},
		{[]string{"plugin", "history", ""}, "math\tserving\n:4\n"},
		{[]string{"breaker", "open", "data"}, "database\tclosed\n:4\n"},
		{[]string{"token", "create", ""}, ":0\n"},
		{[]string{"queue", "pause", "--socket", "/nowhere/x", ""}, ":4\n"},
	} {
		require.Equal(t, c.want, b.run(t, append([]string{"__complete"}, c.args...)...).out, c.args)
	}
}
