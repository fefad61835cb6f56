package workflow

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write what the golden files expect")

// divider separates a template from the expected result.
const divider = "----------\n"

// golden checks every file of a folder: a template, a divider, and the output of render
// for it.
func golden(t *testing.T, folder string, render func(t *testing.T, src string) string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.txt"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(file)
			require.NoError(t, err)
			src, want, _ := strings.Cut(string(raw), divider)
			got := render(t, src)
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(src+divider+got), 0o644))
				return
			}
			require.Equal(t, want, got)
		})
	}
}

func TestTemplateErrors(t *testing.T) {
	t.Parallel()
	golden(t, "errors", func(t *testing.T, src string) string {
		t.Helper()
		tmpl, err := ParseTemplate("t.yaml", []byte(src), Limits{MaxSteps: 12, MaxEnvironments: 4, MaxConfig: 2000})
		require.Error(t, err)
		require.Nil(t, tmpl)
		_, ok := errors.AsType[*TemplateError](err)
		require.True(t, ok)
		return err.Error() + "\n"
	})
}

func TestTemplatePlans(t *testing.T) {
	t.Parallel()
	golden(t, "plans", func(t *testing.T, src string) string {
		t.Helper()
		return describe(parse(t, src))
	})
}

// parse parses a valid template and returns its plans.
func parse(tb testing.TB, src string) []Plan {
	tb.Helper()
	tmpl, err := ParseTemplate("t.yaml", []byte(src), Limits{MaxSteps: 50_000})
	require.NoError(tb, err)
	plans, err := tmpl.Plans()
	require.NoError(tb, err)
	for i := range plans {
		requirePlan(tb, &plans[i])
	}
	return plans
}

// requirePlan checks what holds for every plan.
func requirePlan(tb testing.TB, p *Plan) {
	tb.Helper()
	edges := map[[2]int32]bool{}
	for n, s := range p.Steps {
		require.NotEmpty(tb, s.Name)
		require.NotEmpty(tb, s.Handler)
		require.True(tb, json.Valid(s.Config))
		require.GreaterOrEqual(tb, s.Retry.Cap, s.Retry.Base)
		for i, parent := range s.Parents {
			require.Less(tb, parent, int32(n), "parents come first")
			require.True(tb, i == 0 || s.Parents[i-1] < parent, "ascending")
			edges[[2]int32{parent, int32(n)}] = true
		}
	}
	for n, s := range p.Steps {
		for i, child := range s.Children {
			require.True(tb, i == 0 || s.Children[i-1] < child, "ascending")
			require.True(tb, edges[[2]int32{int32(n), child}])
			delete(edges, [2]int32{int32(n), child})
		}
	}
	require.Empty(tb, edges)
}

// describe formats plans for readers to compare.
func describe(plans []Plan) string {
	var b strings.Builder
	for _, p := range plans {
		fmt.Fprintf(&b, "%s/%s@%s environment=%q priority=%d %s\n", p.Namespace, p.Name, p.Version, p.Environment, p.Priority, p.Description)
		if p.Identity != IdentityAllow {
			fmt.Fprintf(&b, "  identity %s\n", p.Identity)
		}
		if p.InputSchema != nil {
			fmt.Fprintf(&b, "  input %s\n", p.InputSchema)
		}
		for n, s := range p.Steps {
			fmt.Fprintf(&b, "  %d %s %s parents=%v children=%v\n", n, s.Name, s.Handler, s.Parents, s.Children)
			r := s.Retry
			fmt.Fprintf(&b, "    retryable=%t max_attempts=%d backoff=%s base=%s cap=%s jitter=%v timeout=%s",
				r.Retryable, r.MaxAttempts, r.Backoff, r.Base, r.Cap, r.Jitter, s.Timeout)
			if s.Priority != nil {
				fmt.Fprintf(&b, " priority=%d", *s.Priority)
			}
			fmt.Fprintf(&b, "\n    %s\n", s.Config)
		}
	}
	return b.String()
}

// seeds returns the templates of all golden files.
func seeds(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "*", "*.txt"))
	require.NoError(tb, err)
	out := make([]string, len(files))
	for i, file := range files {
		raw, err := os.ReadFile(file)
		require.NoError(tb, err)
		out[i], _, _ = strings.Cut(string(raw), divider)
	}
	return out
}
