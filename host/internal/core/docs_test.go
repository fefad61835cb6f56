package core_test

import (
	"context"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/telemetry"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

var update = flag.Bool("update", false, "write the generated parts of the documents")

const root = "../../.."

// TestDocsGenerated compares the parts of the documents that are made of code
// with the code: what stands between <!-- NAME: generated … --> and <!-- /NAME -->.
func TestDocsGenerated(t *testing.T) {
	t.Parallel()
	parts := map[string]func(*testing.T) string{
		"configuration.md keys":    configurationKeys,
		"configuration.md plugins": pluginKeys,
		"operate.md metrics":       metricNames,
		"semantics.md tasks":       taskDiagram,
		"semantics.md steps":       stepDiagram,
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

func configurationKeys(t *testing.T) string {
	t.Helper()
	cfg, err := config.Load(config.Options{Environ: []string{"HOME=/home/you"}})
	require.NoError(t, err)
	return keyTables(t, reflect.ValueOf(*cfg), fieldComments(t, "config.go"), "")
}

func pluginKeys(t *testing.T) string {
	t.Helper()
	defaults := config.PluginSettings{Required: true, MaxInFlight: 500, StartTimeout: 10 * time.Second}
	file := filepath.Join(t.TempDir(), "plugins.toml")
	require.NoError(t, os.WriteFile(file, []byte("[plugin.handler.x]\npath = \"x\"\n"), 0o600))
	specs, err := config.LoadPlugins(file, "development")
	require.NoError(t, err)
	defaults.Path = specs[0].Path
	require.Equal(t, defaults, specs[0].PluginSettings)
	defaults.Path = ""
	return keyTable(t, "", reflect.ValueOf(defaults), fieldComments(t, "plugins.go"))
}

// fieldComments returns the comments of the fields of structs, by Struct.Field.
func fieldComments(t *testing.T, file string) map[string]string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "config", file), nil, parser.ParseComments)
	require.NoError(t, err)
	comments := map[string]string{}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					comments[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
		}
		return true
	})
	return comments
}

// keyTables prints a table for each component, and for each table in it.
func keyTables(t *testing.T, v reflect.Value, comments map[string]string, prefix string) string {
	t.Helper()
	var out strings.Builder
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("toml")
		if name == "" || name == "-" || f.Type.Kind() != reflect.Struct || f.Type == reflect.TypeFor[config.Secret]() {
			continue
		}
		out.WriteString(keyTable(t, prefix+name, v.Field(i), comments))
		out.WriteString(keyTables(t, v.Field(i), comments, prefix+name+"."))
	}
	return out.String()
}

func keyTable(t *testing.T, title string, v reflect.Value, comments map[string]string) string {
	t.Helper()
	var rows strings.Builder
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("toml")
		if name == "" || f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[config.Secret]() {
			continue
		}
		comment := strings.TrimPrefix(comments[v.Type().Name()+"."+f.Name], f.Name+" ")
		require.NotEmpty(t, comment, "%s has no comment", name)
		comment = strings.ReplaceAll(comment, "URLFile", "url_file")
		fmt.Fprintf(&rows, "| `%s` | %s | %s | %s |\n", name, kind(f), defaultOf(f, v.Field(i)), comment)
	}
	if rows.Len() == 0 {
		return ""
	}
	head := "| key | type and range | default | meaning: it… |\n|---|---|---|---|\n"
	if title != "" {
		head = "### " + title + "\n\n" + head
	}
	return head + rows.String() + "\n"
}

func kind(f reflect.StructField) string {
	limits := ""
	if f.Tag.Get("min") != "" {
		limits = ", " + f.Tag.Get("min") + " to " + f.Tag.Get("max")
	}
	switch {
	case f.Tag.Get("oneof") != "":
		return "one of " + strings.ReplaceAll(f.Tag.Get("oneof"), ",", ", ")
	case f.Tag.Get("path") != "":
		return "path"
	case f.Type == reflect.TypeFor[time.Duration]():
		return "duration" + limits
	case f.Type.Kind() == reflect.Bool:
		return "true or false"
	case f.Type.Kind() == reflect.Int:
		return "number" + limits
	default:
		return "text"
	}
}

// defaultOf leaves out paths: those that have a default derive it from the
// machine, and their comments say how.
func defaultOf(f reflect.StructField, v reflect.Value) string {
	text := fmt.Sprint(v.Interface())
	if d, ok := v.Interface().(time.Duration); ok {
		text = strings.TrimSuffix(strings.TrimSuffix(d.String(), "0s"), "0m")
		if d%time.Minute != 0 || d == 0 {
			text = d.String()
		}
	}
	if text == "" || f.Tag.Get("path") != "" {
		return ""
	}
	return "`" + text + "`"
}

// metricNames lists what a host's parts register.
func metricNames(t *testing.T) string {
	t.Helper()
	reg := telemetry.NewRegistry(telemetry.ThisBuild())
	pipeline.New(pipeline.Config{}, nil, nil, nil, reg, hclog.NewNullLogger())
	_, err := pluginhost.New(pluginhost.Config{
		NextGeneration: func(context.Context) (uint64, error) { return 1, nil },
		StoreDir:       t.TempDir(), Plugins: []pluginhost.Spec{{Kind: "handler", Name: "x", Path: os.Args[0]}},
	}, reg, hclog.NewNullLogger())
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

// descPattern reads how prometheus prints what a metric is.
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

// documents returns the files that users read.
func documents(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	return append(files, filepath.Join(root, "README.md"))
}

// TestDocsNameWhatExists finds links that lead nowhere, and tests, metrics, tables
// and SQL functions that are named and do not exist.
func TestDocsNameWhatExists(t *testing.T) {
	t.Parallel()
	names := declared(t)
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	named := regexp.MustCompile("`((?:Test[A-Z]|tasker_)[A-Za-z0-9_]+)(?:\\([^`]*\\))?`")
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
	sqlName    = regexp.MustCompile(`(?m)^create (?:table|function|view|type|sequence) (\w+)`)
	metricName = regexp.MustCompile("`(tasker_\\w+)`")
)

// declared returns the names of tests, metrics and what migrations create.
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

// TestDocsTemplates reads the templates that documents show: the good ones are
// in order, the bad ones give the errors that are shown.
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
