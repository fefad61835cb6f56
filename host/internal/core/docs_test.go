package core_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/core"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

var update = flag.Bool("update", false, "write the generated parts of the documents")

const root = "../../.."

// TestDocsGenerated compares the generated parts of the documentation with the code: what
// is between <!-- NAME: generated … --> and <!-- /NAME -->.
func TestDocsGenerated(t *testing.T) {
	t.Parallel()
	parts := map[string]func(*testing.T) string{
		"metrics.md metrics": metricNames,
		"semantics.md tasks": taskDiagram,
		"semantics.md steps": stepDiagram,
	}
	for _, part := range slices.Sorted(maps.Keys(parts)) {
		file, name, _ := strings.Cut(part, " ")
		path := filepath.Join(root, "docs", file)
		text := read(t, path)
		between := regexp.MustCompile(`(?s)(<!-- ` + name + `: generated[^\n]*-->\n).*?(<!-- /` + name + ` -->)`)
		found := between.FindStringSubmatch(text)
		require.NotNil(t, found, "%s has no part %s", file, name)
		want := found[1] + "\n" + parts[part](t) + "\n" + found[2]
		if *update {
			text = strings.Replace(text, found[0], want, 1)
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			continue
		}
		require.Equal(t, want, found[0], "%s is behind the code: go test ./host/internal/core -run TestDocsGenerated -update", file)
	}
}

// TestConfigurationReference compares the page of all keys with the code.
func TestConfigurationReference(t *testing.T) {
	t.Parallel()
	page, err := config.Reference()
	require.NoError(t, err)
	path := filepath.Join(root, "docs", "configuration-reference.md")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(page), 0o600))
	}
	require.Equal(t, page, read(t, path), "regenerate it: bin/tasker config reference > docs/configuration-reference.md")
}

// metricNames lists the metrics that a host's parts register.
func metricNames(t *testing.T) string {
	t.Helper()
	cfg, err := config.Load(config.Options{Environ: []string{"HOME=/home/you"}, Overrides: map[string]string{"system.state_dir": t.TempDir()}})
	require.NoError(t, err)
	reg, err := core.Registered(cfg, config.PluginSpec{Kind: "handler", Name: "x", PluginSettings: config.PluginSettings{Path: os.Args[0]}})
	require.NoError(t, err)
	described := make(chan *prometheus.Desc)
	go func() {
		reg.Describe(described)
		close(described)
	}()
	rows := map[string]string{}
	for d := range described {
		m := descPattern.FindStringSubmatch(d.String())
		require.NotNil(t, m, d.String())
		if strings.HasPrefix(m[1], "tasker_") {
			rows[m[1]] = fmt.Sprintf("| `%s` | %s | %s |\n", m[1], strings.ReplaceAll(m[3], ",", ", "), m[2])
		}
	}
	var out strings.Builder
	out.WriteString("| metric | labels | meaning |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		out.WriteString(rows[name])
	}
	return out.String()
}

// descPattern matches prometheus' textual description of a metric.
var descPattern = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "(.*?)", (?:unit: "[^"]*", )?constLabels: \{.*\}, variableLabels: \{(.*)\}\}$`)

func taskDiagram(*testing.T) string { return diagram(vocab.TaskStates, vocab.TaskEdges) }

func stepDiagram(*testing.T) string { return diagram(vocab.StepStates, vocab.StepEdges) }

func diagram[S ~string](states []S, edges map[S][]S) string {
	var out strings.Builder
	out.WriteString("```mermaid\nstateDiagram-v2\n    [*] --> " + string(states[0]) + "\n")
	for _, from := range states {
		for _, to := range edges[from] {
			fmt.Fprintf(&out, "    %s --> %s\n", from, to)
		}
		if len(edges[from]) == 0 {
			fmt.Fprintf(&out, "    %s --> [*]\n", from)
		}
	}
	out.WriteString("```\n")
	return out.String()
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// documents returns the documentation files.
func documents(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	return append(files, filepath.Join(root, "README.md"))
}

// TestDocsNameWhatExists finds broken links, and names of tests, metrics, tables and SQL
// functions that do not exist.
func TestDocsNameWhatExists(t *testing.T) {
	t.Parallel()
	names := declared(t)
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	named := regexp.MustCompile("`((?:Test[A-Z]|tasker_)[A-Za-z0-9_]+)(?:[({][^`]*)?`")
	for _, file := range documents(t) {
		text := read(t, file)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			require.FileExists(t, filepath.Join(filepath.Dir(file), m[1]), "%s links to it", file)
		}
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			require.True(t, names[m[1]], "%s names %s", file, m[1])
		}
	}
}

var (
	testName   = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	sqlName    = regexp.MustCompile(`(?m)^create (?:(?:unlogged )?table|function|view|type|sequence) (\w+)`)
	metricName = regexp.MustCompile("`(tasker_\\w+)`")
)

// declared returns the names of tests, metrics and database objects.
func declared(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	note := func(pattern *regexp.Regexp, text string) {
		for _, m := range pattern.FindAllStringSubmatch(text, -1) {
			names[m[1]] = true
		}
	}
	note(metricName, metricNames(t))
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root:
			return filepath.SkipDir
		case strings.HasSuffix(path, "_test.go"):
			note(testName, read(t, path))
		case strings.HasSuffix(path, ".sql"):
			note(sqlName, read(t, path))
		}
		return nil
	})
	require.NoError(t, err)
	return names
}

var (
	templateBlock = regexp.MustCompile("(?ms)^```yaml\n(namespace:.*?)^```$")
	faultBlock    = regexp.MustCompile("(?ms)^```yaml wrong.yaml\n(.*?)^```\n\n```text\n(.*?)^```$")
)

// TestDocsTemplates parses the templates in the documentation: the good ones are valid,
// the bad ones give the errors shown.
func TestDocsTemplates(t *testing.T) {
	t.Parallel()
	good, bad := 0, 0
	for _, file := range documents(t) {
		text := read(t, file)
		for _, m := range templateBlock.FindAllStringSubmatch(text, -1) {
			_, err := workflow.ParseTemplate(file, []byte(m[1]), workflow.Limits{})
			require.NoError(t, err)
			good++
		}
		for _, m := range faultBlock.FindAllStringSubmatch(text, -1) {
			_, err := workflow.ParseTemplate("wrong.yaml", []byte(m[1]), workflow.Limits{})
			require.Error(t, err)
			require.Equal(t, m[2], err.Error()+"\n", "in %s", file)
			bad++
		}
	}
	require.Positive(t, good)
	require.Positive(t, bad)
}

// TestRightsOfQueues grants roles the rights listed on the page about queues, and uses
// them as it describes.
func TestRightsOfQueues(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	do := func(sql string, args ...any) {
		t.Helper()
		_, err := db.Exec(t.Context(), sql, args...)
		require.NoError(t, err, sql)
	}
	do("select pgmq.create(q) from unnest(array['task_requests_queue', 'orchestration_step_results', 'shop_queue']) q")
	page := read(t, filepath.Join(root, "docs/queues.md"))
	rights := regexp.MustCompile("(?ms)^```sql\n(grant .*? to (\\w+);)\n```$").FindAllStringSubmatch(page, -1)
	require.Len(t, rights, 2)
	sending := []string{"select pgmq.send('task_requests_queue', '{}')"}
	working := []string{
		"select msg_id, message, headers from pgmq.read('shop_queue', 60, 10)",
		"select context from tasker_tasks",
		"select workflow_step_uuid, results from get_step_transitive_dependencies('01a2072d-6063-7560-8715-3182fcc00001')",
		"select pgmq.send('orchestration_step_results', '{}')",
		"select pgmq.delete('shop_queue', 1)",
	}
	for i, calls := range [][]string{sending, working} {
		role := fmt.Sprintf("docs_%d_%d", i, os.Getpid())
		do("create role " + role)
		t.Cleanup(func() {
			_, err := db.Exec(context.WithoutCancel(t.Context()), "drop owned by "+role+"; drop role "+role)
			require.NoError(t, err)
		})
		do(regexp.MustCompile(" to "+rights[i][2]+";").ReplaceAllString(rights[i][1], " to "+role+";"))
		for _, call := range calls {
			do("begin; set local role " + role + "; " + call + "; commit")
		}
	}
}
