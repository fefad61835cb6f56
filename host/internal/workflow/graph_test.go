package workflow

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// graphYAML returns a template of steps s0, s1, … with these parents.
func graphYAML(parents [][]int) string {
	var b strings.Builder
	b.WriteString("namespace: graph\nname: graph\nversion: 1.0.0\nsteps:\n")
	for n, ps := range parents {
		fmt.Fprintf(&b, "- {name: s%d, handler: h", n)
		if len(ps) > 0 {
			b.WriteString(", depends_on: [")
			for i, p := range ps {
				if i > 0 {
					b.WriteString(", ")
				}
				fmt.Fprintf(&b, "s%d", p)
			}
			b.WriteString("]")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func graphPlan(tb testing.TB, parents [][]int) *Plan {
	tb.Helper()
	return &parse(tb, graphYAML(parents))[0]
}

// shapes that were handled wrongly elsewhere.
func chain(n int) [][]int {
	parents := make([][]int, n)
	for i := 1; i < n; i++ {
		parents[i] = []int{i - 1}
	}
	return parents
}

func fan(n int) [][]int {
	parents := make([][]int, n+2)
	for i := range n {
		parents[i+1] = []int{0}
		parents[n+1] = append(parents[n+1], i+1)
	}
	return parents
}

// diamonds has 2^n paths.
func diamonds(n int) [][]int {
	parents := [][]int{nil}
	for range n {
		top := len(parents) - 1
		parents = append(parents, []int{top}, []int{top}, []int{top + 1, top + 2})
	}
	return parents
}

func reversed(parents [][]int) [][]int {
	last := len(parents) - 1
	out := make([][]int, len(parents))
	for n, ps := range parents {
		for _, p := range ps {
			out[last-n] = append(out[last-n], last-p)
		}
	}
	return out
}

func TestLargeGraphs(t *testing.T) {
	t.Parallel()
	for name, parents := range map[string][][]int{
		"chain": chain(10_000), "reversed chain": reversed(chain(3_000)),
		"fan": fan(3_000), "diamonds": diamonds(20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := graphPlan(t, parents)
			last := len(p.Steps) - 1
			require.Len(t, p.Ancestors(last), last)
			for n := range p.Steps {
				require.Equal(t, n == 0, len(p.Steps[n].Parents) == 0, "only the first is a root")
				require.Equal(t, n == last, len(p.Steps[n].Children) == 0, "only the last is a sink")
			}
		})
	}
}

func TestLargeCycle(t *testing.T) {
	t.Parallel()
	parents := chain(3_000)
	parents[0] = []int{2_999}
	_, err := ParseTemplate("t.yaml", []byte(graphYAML(parents)), Limits{MaxSteps: 3_000})
	require.ErrorContains(t, err, "in a cycle: s0 → s1 → s2 →")
	require.ErrorContains(t, err, "→ s49 → … → s0")
	require.Less(t, len(err.Error()), 1000)
}

func TestAncestorsNearestFirst(t *testing.T) {
	t.Parallel()
	// s0 → s1 → s3 → s5, s0 → s2 → s5, s4 → s5; s0 is also s5's parent.
	p := graphPlan(t, [][]int{nil, {0}, {0}, {1}, nil, {3, 2, 4, 0}})
	require.Equal(t, []string{"s0", "s1", "s2", "s3", "s4", "s5"}, names(p))
	require.Equal(t, []int32{0, 2, 3, 4, 1}, p.Ancestors(5))
	require.Empty(t, p.Ancestors(0))
}

func names(p *Plan) []string {
	out := make([]string, len(p.Steps))
	for n := range p.Steps {
		out[n] = p.Steps[n].Name
	}
	return out
}

// digraph draws any directed graph without self edges or duplicates.
func digraph(t *rapid.T) [][]int {
	n := rapid.IntRange(1, 12).Draw(t, "steps")
	parents := make([][]int, n)
	if n == 1 {
		return parents
	}
	for range rapid.IntRange(0, 2*n).Draw(t, "edges") {
		from, to := rapid.IntRange(0, n-1).Draw(t, "from"), rapid.IntRange(0, n-1).Draw(t, "to")
		if from != to && !slices.Contains(parents[to], from) {
			parents[to] = append(parents[to], from)
		}
	}
	return parents
}

// kahn is the oracle: it repeatedly takes the lowest step whose parents are all taken. ok
// is false if there is a cycle.
func kahn(parents [][]int) (order []int, ok bool) {
	for len(order) < len(parents) {
		next := -1
		for n, ps := range parents {
			free := !slices.Contains(order, n) &&
				!slices.ContainsFunc(ps, func(p int) bool { return !slices.Contains(order, p) })
			if free {
				next = n
				break
			}
		}
		if next < 0 {
			return nil, false
		}
		order = append(order, next)
	}
	return order, true
}

func TestGraphAgreesWithKahn(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parents := digraph(t)
		tmpl, err := ParseTemplate("t.yaml", []byte(graphYAML(parents)), Limits{})
		order, acyclic := kahn(parents)
		require.Equal(t, acyclic, err == nil, "%v", err)
		if !acyclic {
			requireCycles(t, parents, err)
			return
		}
		plans, err := tmpl.Plans()
		require.NoError(t, err)
		p := &plans[0]
		for n, i := range order {
			require.Equal(t, fmt.Sprintf("s%d", i), p.Steps[n].Name)
			var want []int32
			for _, parent := range parents[i] {
				want = append(want, int32(slices.Index(order, parent)))
			}
			slices.Sort(want)
			require.Equal(t, want, p.Steps[n].Parents)
		}
		requireAncestors(t, p)
	})
}

// requireCycles checks that each reported cycle is one.
func requireCycles(t require.TestingT, parents [][]int, err error) {
	wrong, ok := errors.AsType[*TemplateError](err)
	require.True(t, ok)
	for _, p := range wrong.Problems {
		_, text, found := strings.Cut(p.Message, "in a cycle: ")
		require.True(t, found, p.Message)
		steps := strings.Split(text, " → ")
		require.Equal(t, steps[0], steps[len(steps)-1])
		require.Greater(t, len(steps), 2)
		for i := 1; i < len(steps); i++ {
			var from, to int
			_, err := fmt.Sscanf(steps[i-1]+" "+steps[i], "s%d s%d", &from, &to)
			require.NoError(t, err)
			require.Contains(t, parents[to], from, p.Message)
		}
	}
}

// requireAncestors compares with distances by brute force.
func requireAncestors(t require.TestingT, p *Plan) {
	for n := range p.Steps {
		distance := map[int32]int{}
		frontier := []int32{int32(n)}
		for d := 1; len(frontier) > 0; d++ {
			var next []int32
			for _, s := range frontier {
				for _, parent := range p.Steps[s].Parents {
					if _, seen := distance[parent]; !seen {
						distance[parent] = d
						next = append(next, parent)
					}
				}
			}
			frontier = next
		}
		got := p.Ancestors(n)
		require.Len(t, got, len(distance))
		require.True(t, slices.IsSortedFunc(got, func(a, b int32) int {
			if distance[a] != distance[b] {
				return distance[a] - distance[b]
			}
			return int(a - b)
		}), "%v", got)
	}
}

func TestPlansAreCopies(t *testing.T) {
	t.Parallel()
	src := `
namespace: shop
name: orders
version: 1.0.0
input_schema: { type: object }
steps:
  - { name: a, handler: h, priority: 1, config: { k: 1 } }
  - { name: b, handler: h, depends_on: [a] }
environments: { test: {} }
`
	tmpl, err := ParseTemplate("t.yaml", []byte(src), Limits{})
	require.NoError(t, err)
	require.Equal(t, "shop/orders@1.0.0", tmpl.ID())
	first, err := tmpl.Plans()
	require.NoError(t, err)
	want := describe(first)
	for i := range first {
		first[i].InputSchema[0] = 'x'
		first[i].Steps[0].Config[1] = 'x'
		first[i].Steps[0].Children[0] = 9
		first[i].Steps[1].Parents[0] = 9
		*first[i].Steps[0].Priority = 9
		again, err := tmpl.Plans()
		require.NoError(t, err)
		require.Equal(t, want, describe(again))
	}
	_, err = new(Template).Plans()
	require.Error(t, err)
	require.Empty(t, new(Template).ID())
}

func BenchmarkParseTemplate(b *testing.B) {
	for name, parents := range map[string][][]int{"4 steps": chain(4), "1000 steps": chain(1000)} {
		src := []byte(graphYAML(parents))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				if _, err := ParseTemplate("t.yaml", src, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
