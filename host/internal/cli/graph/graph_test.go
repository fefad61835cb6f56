package graph_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/cli/graph"
)

var update = flag.Bool("update", false, "write the golden files")

func plain(_, text string) string { return text }

// nodes makes nodes of "name: parent parent".
func nodes(t *testing.T, list ...string) []graph.Node {
	t.Helper()
	var out []graph.Node
	byName := map[string]int{}
	for _, text := range list {
		name, parents, _ := strings.Cut(text, ":")
		n := graph.Node{Lines: []graph.Text{{Text: name}, {Text: "complete 12ms", Style: "green"}}}
		for _, p := range strings.Fields(parents) {
			require.Contains(t, byName, p)
			n.Parents = append(n.Parents, byName[p])
		}
		byName[name] = len(out)
		out = append(out, n)
	}
	return out
}

func TestDraw(t *testing.T) {
	t.Parallel()
	for name, list := range map[string][]string{
		"one":     {"only"},
		"linear":  {"linear_step_1", "linear_step_2: linear_step_1", "linear_step_3: linear_step_2", "linear_step_4: linear_step_3"},
		"diamond": {"start", "branch_b: start", "branch_c: start", "end: branch_b branch_c"},
		"tree": {
			"root", "left: root", "right: root", "leaf_d: left", "leaf_e: left", "leaf_f: right", "leaf_g: right", "convergence: leaf_d leaf_e leaf_f leaf_g",
		},
		"mixed": {
			"init", "process_left: init", "process_right: init", "validate: process_left process_right", "transform: process_left", "analyze: process_right",
			"finalize: validate transform analyze",
		},
		"fulfillment": {"validate_order", "reserve_inventory: validate_order", "process_payment: validate_order reserve_inventory", "ship_order: reserve_inventory process_payment"},
		"crossing":    {"a", "b", "c", "x: b c", "y: a c", "z: a b"},
		"long":        {"top", "one: top", "two: one", "three: two", "bottom: top three", "aside: top"},
		"apart":       {"a", "b", "c: a", "d: b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := graph.Draw(nodes(t, list...), plain)
			path := filepath.Join("testdata", name+".txt")
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err, "run the test with -update")
			require.Equal(t, string(want), got)
		})
	}
}

// For every graph: drawing ends, every box is whole and has its name, and no two boxes
// overlap, since both names can be read.
func TestDrawAnything(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		list := make([]graph.Node, 1+r.IntN(14))
		for i := range list {
			list[i].Lines = []graph.Text{{Text: fmt.Sprintf("<n%d>", i)}, {Text: strings.Repeat("語", r.IntN(9)), Style: "x"}}
			for p := range i {
				if r.IntN(4) == 0 {
					list[i].Parents = append(list[i].Parents, p)
				}
			}
		}
		got := graph.Draw(list, plain)
		for i := range list {
			require.Equal(t, 1, strings.Count(got, fmt.Sprintf(" <n%d> ", i)), "seed %d\n%s", seed, got)
		}
		arrows := 0
		for _, n := range list {
			if len(n.Parents) > 0 {
				arrows++
			}
		}
		require.Equal(t, arrows, strings.Count(got, "▼"), "one arrow for each node that has parents; seed %d\n%s", seed, got)
		for line := range strings.Lines(got) {
			require.Less(t, runewidth.StringWidth(line), 400)
		}
	}
}

func TestStyles(t *testing.T) {
	t.Parallel()
	got := graph.Draw(nodes(t, "a"), func(style, text string) string {
		if style == "" {
			return text
		}
		return style + "(" + text + ")"
	})
	require.Contains(t, got, "│ green(complete 12ms) │")
}
