package bench

import (
	"fmt"
	"strings"
)

const (
	// Namespace is the namespace of benchmark tasks; if there are several, they have a
	// number appended.
	Namespace    = "tasker_bench"
	benchVersion = "1.0.0"

	noop  = "bench.noop"    // returns about fifty bytes of JSON
	clock = "bench.clock"   // returns when it was called
	echo  = "bench.echo"    // returns the task's context
	apart = "bench.outside" // for outside workers only
)

// Shape describes the tasks of a workload.
type Shape struct {
	Name     string // the template's
	Steps    int    // per task
	Waves    []int  // of one task: how many steps can run at first, then when those are done, and so on
	Template []byte // YAML
	handler  string
	steps    []string
}

var line = []string{"a", "b a", "c b", "d c"}

// Shapes are the shapes of a fixed size, by name.
var Shapes = map[string]Shape{
	"linear":  shape("linear", noop, line...),
	"diamond": shape("diamond", noop, "a", "b a", "c a", "d b c"),
	"tree":    shape("tree", noop, "a", "b a", "c a", "d b", "e b", "f c", "g c", "h d e f g"),
	"mixed":   shape("mixed", noop, "a", "b a", "c a", "d b c", "e b", "f c", "g d e f"),
	"single":  shape("single", noop, "a"),
}

func outside(Options) Shape { return shape("outside", apart, line...) }

func echoing(Options) Shape { return shape("echoing", echo, line...) }

func clocked(Options) Shape { return shape("clocked", clock, line...) }

// FanOut is a root, then width steps, then one that waits for all of them.
func FanOut(width int) Shape {
	steps := make([]string, 0, width+2)
	steps = append(steps, "root")
	var join strings.Builder
	join.WriteString("join")
	for i := range width {
		steps = append(steps, fmt.Sprintf("leaf_%d root", i))
		fmt.Fprintf(&join, " leaf_%d", i)
	}
	return shape(fmt.Sprintf("fan_out_%d", width), noop, append(steps, join.String())...)
}

// shape makes a template. Each step is given as its name, followed by the names of its
// parents.
func shape(name, handler string, steps ...string) Shape {
	s := Shape{Name: name, Steps: len(steps), Waves: waves(steps), handler: handler, steps: steps}
	s.Template = s.in(Namespace)
	return s
}

// in returns the template for a namespace.
func (s Shape) in(namespace string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "namespace: %s\nname: %s\nversion: %s\ndescription: benchmark\nsteps:\n", namespace, s.Name, benchVersion)
	for _, step := range s.steps {
		words := strings.Fields(step)
		fmt.Fprintf(&b, "  - name: %s\n    handler: %s\n", words[0], s.handler)
		if len(words) > 1 {
			fmt.Fprintf(&b, "    depends_on: [%s]\n", strings.Join(words[1:], ", "))
		}
	}
	return []byte(b.String())
}

// waves counts the steps by the longest path to them.
func waves(steps []string) (counts []int) {
	depth := map[string]int{}
	for _, s := range steps {
		words := strings.Fields(s)
		d := 0
		for _, parent := range words[1:] {
			d = max(d, depth[parent]+1)
		}
		depth[words[0]] = d
		if d == len(counts) {
			counts = append(counts, 0)
		}
		counts[d]++
	}
	return counts
}

// namespaceOf returns the n-th benchmark namespace; 0 is the default one.
func namespaceOf(n int) string {
	if n == 0 {
		return Namespace
	}
	return fmt.Sprintf("%s_%d", Namespace, n)
}
