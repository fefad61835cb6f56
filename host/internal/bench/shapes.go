package bench

import (
	"fmt"
	"strings"
)

const (
	// Namespace is that of all tasks of benchmarks.
	Namespace    = "tasker_bench"
	benchVersion = "1.0.0"
)

// Shape is a workload.
type Shape struct {
	Name     string // the template's
	Steps    int    // of one task
	Template []byte // YAML
}

// Shapes are the workloads by name. All steps run the handler bench.noop, which
// returns about fifty bytes of JSON.
var Shapes = map[string]Shape{
	"linear":  shape("linear", []string{""}, []string{"a"}, []string{"b"}, []string{"c"}),
	"diamond": shape("diamond", []string{""}, []string{"a"}, []string{"a"}, []string{"b", "c"}),
	"single":  shape("single", []string{""}),
}

// shape makes a template whose steps are called a, b, c, … and depend on those
// named.
func shape(name string, parents ...[]string) Shape {
	var b strings.Builder
	fmt.Fprintf(&b, "namespace: %s\nname: %s\nversion: %s\ndescription: benchmark\nsteps:\n", Namespace, name, benchVersion)
	for i, p := range parents {
		fmt.Fprintf(&b, "  - name: %c\n    handler: bench.noop\n", 'a'+rune(i))
		if p[0] != "" {
			fmt.Fprintf(&b, "    depends_on: [%s]\n", strings.Join(p, ", "))
		}
	}
	return Shape{Name: name, Steps: len(parents), Template: []byte(b.String())}
}
