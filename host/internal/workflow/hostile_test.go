package workflow

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

const head = "namespace: shop\nname: orders\nversion: 1.0.0\n"

// Malicious templates: each is refused quickly.
func TestHostileTemplates(t *testing.T) {
	t.Parallel()
	var bomb, merges strings.Builder
	bomb.WriteString(head + "steps:\n- name: a\n  handler: h\n  config:\n    a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 30 {
		fmt.Fprintf(&bomb, "    a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 10))
	}
	merges.WriteString(head + "steps:\n- name: a\n  handler: h\n  config:\n    m: &m {")
	for i := range 1000 {
		fmt.Fprintf(&merges, "k%d: 1, ", i)
	}
	merges.WriteString("}\n")
	for i := range 1000 {
		fmt.Fprintf(&merges, "    n%d: {<<: *m}\n", i)
	}
	config := func(s string) string { return head + "steps:\n- name: a\n  handler: h\n  config: {x: " + s + "}\n" }
	for name, c := range map[string]struct{ src, want string }{
		"alias bomb":         {bomb.String(), "exceeds 200000 bytes as JSON"},
		"merge bomb":         {merges.String(), "merge keys copy more than 200000 entries"},
		"deep flow":          {config(strings.Repeat("[", 50_000)), "nested deeper than 100 levels"},
		"deep flow mappings": {config(strings.Repeat("{a: ", 50_000)), "nested deeper than 100 levels"},
		"deep dashes":        {head + "steps: \n" + strings.Repeat("- ", 50_000) + "x\n", "nested deeper than 100 levels"},
		"deep question":      {head + strings.Repeat("? ", 50_000) + "x\n", "nested deeper than 100 levels"},
		"deep anchors":       {config(strings.Repeat("&a ", 50_000) + "x"), "nested deeper than 100 levels"},
		"far indented":       {head + "steps:\n" + strings.Repeat(" ", 2000) + "- name: a\n", "a line starts beyond column 1000"},
		"block keys":         {strings.Repeat("k: 1\n", 50_000), "a mapping in block style has more than 5000 keys"},
		"dashes":             {head + "steps:\n" + strings.Repeat("-\n", 30_000), "more than 1000 entries have no value"},
		"keys of nothing":    {head + "steps:\n" + strings.Repeat("- k:\n", 30_000), "more than 1000 entries have no value"},
		"flow of nothing":    {config("{" + strings.Repeat("a, ", 30_000) + "}"), "more than 1000 entries have no value"},
		"flow keys":          {config("[" + strings.Repeat("{a: }, ", 30_000) + "]"), "more than 1000 entries have no value"},
		"long number":        {config(strings.Repeat("9", 150_000)), "the number is out of range"},
		"long text":          {config(`"` + strings.Repeat("x", 1<<18) + `"`), "the document has 262152 bytes, the limit is 200000"},
		"source":             {head + strings.Repeat("# comment\n", 1<<17), "the limit is 1048576"},
		"not UTF-8":          {head + "description: \"\xff\"\n", "t.yaml:4:15: the template is not UTF-8"},
		"NUL":                {head + "description: \x00\n", "t.yaml:4:14: the template contains a NUL character"},
		"many problems":      {head + "steps: [" + strings.Repeat("x, ", 999) + "]\n", "more than 200 problems"},
		"many configs":       {manyConfigs(), "the configurations of all steps and environments exceed 16777216 bytes together"},
		"many edges":         {manyEdges(), "the steps have more than 1000000 dependencies in total"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			tmpl, err := ParseTemplate("t.yaml", []byte(c.src), Limits{MaxSteps: 2000, MaxConfig: 200_000})
			require.Nil(t, tmpl)
			wrong, ok := errors.AsType[*TemplateError](err)
			require.True(t, ok)
			require.LessOrEqual(t, len(wrong.Problems), maxProblems+1)
			require.Contains(t, err.Error(), c.want)
			require.Less(t, time.Since(start), time.Minute)
		})
	}
}

func manyConfigs() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%ssteps:\n- {name: s0, handler: h, config: &c {x: %s}}\n", head, strings.Repeat("y", 100_000))
	for i := range 200 {
		fmt.Fprintf(&b, "- {name: s%d, handler: h, config: *c}\n", i+1)
	}
	return b.String()
}

func manyEdges() string {
	var b strings.Builder
	b.WriteString(head + "steps:\n- name: s0\n  handler: h\n  depends_on: &all [")
	for i := range 1000 {
		fmt.Fprintf(&b, "s%d, ", i)
	}
	b.WriteString("]\n")
	for i := range 1100 {
		fmt.Fprintf(&b, "- {name: s%d, handler: h, depends_on: *all}\n", i+1)
	}
	return b.String()
}

// Large sources of every shape are read in time proportional to their size.
func TestBigTemplates(t *testing.T) {
	t.Parallel()
	for name, src := range map[string]string{
		"flow list":    "x: [" + strings.Repeat("1, ", 30_000) + "]",
		"block list":   "x:\n" + strings.Repeat("- 1\n", 30_000),
		"literal":      "x: |\n" + strings.Repeat("  some text\n", 15_000),
		"folded":       "x: >\n" + strings.Repeat("  some text\n", 15_000),
		"plain lines":  "x:\n" + strings.Repeat("  some text\n", 20_000),
		"quoted lines": "x: \"" + strings.Repeat("  some text\n ", 20_000) + "\"",
		"comments":     strings.Repeat("# comment\n", 30_000) + "x: 1",
		"blank lines":  strings.Repeat("\n", 30_000) + "x: 1",
		"keys":         strings.Repeat("key: 1\n", maxKeys),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := ParseTemplate("t.yaml", []byte(src), Limits{})
			require.Error(t, err)
			t.Logf("%d bytes in %s", len(src), time.Since(start))
			require.Less(t, time.Since(start), time.Minute)
		})
	}
}

func FuzzParseTemplate(f *testing.F) {
	f.Add([]byte(head + "steps: [{name: a, handler: h}]\n"))
	for _, s := range seeds(f) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		tmpl, err := ParseTemplate("t.yaml", src, Limits{MaxSource: 1 << 16})
		if err != nil {
			wrong, ok := errors.AsType[*TemplateError](err)
			require.True(t, ok)
			require.NotEmpty(t, wrong.Problems)
			require.True(t, utf8.ValidString(err.Error()))
			for _, p := range wrong.Problems {
				require.NotEmpty(t, p.Message)
			}
			return
		}
		plans, err := tmpl.Plans()
		require.NoError(t, err)
		for i := range plans {
			requirePlan(t, &plans[i])
			_, err := CompileInput(&plans[i])
			require.NoError(t, err)
		}
	})
}
