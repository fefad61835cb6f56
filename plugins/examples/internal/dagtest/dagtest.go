// Package dagtest runs an example workflow in process, without a host: it walks
// the DAG of a template and calls the handlers, giving each step the results of
// all its ancestors as the host does. It is for tests of the examples. It knows
// nothing about retries and timeouts, which tests of the host cover, and starts
// nothing that would have to be stopped.
package dagtest

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

// TaskUUID is the task of every run: a UUID made at 2026-01-02 03:04:05 UTC.
const TaskUUID = "019b7ca9-8c88-7abc-9def-012345600000"

// Template is the part of a workflow template that the examples use.
type Template struct {
	Namespace    string
	Name         string
	Version      string
	Description  string
	InputSchema  map[string]any `yaml:"input_schema"`
	Defaults     Override
	Steps        []Step
	Environments map[string]struct{ Steps map[string]Override }
}

// Step is a step of a template.
type Step struct {
	Name        string
	Handler     string
	Description string
	DependsOn   []string `yaml:"depends_on"`
	Override    `yaml:",inline"`
}

// Override holds the keys of a step that an environment may replace.
type Override struct {
	Config  map[string]any
	Retry   Retry
	Timeout string
}

// Retry is a step's retry policy, as far as it is written in the template.
type Retry struct {
	MaxAttempts int `yaml:"max_attempts"`
	Backoff     string
	Base        string
	Cap         string
}

// Load reads a template; an unknown key fails the test.
func Load(t testing.TB, path string) Template {
	t.Helper()
	src, err := os.ReadFile(path)
	require.NoError(t, err)
	var tmpl Template
	require.NoError(t, yaml.UnmarshalWithOptions(src, &tmpl, yaml.Strict()), path)
	return tmpl
}

// Step returns the named step.
func (tmpl Template) Step(t testing.TB, name string) Step {
	t.Helper()
	i := slices.IndexFunc(tmpl.Steps, func(s Step) bool { return s.Name == name })
	require.GreaterOrEqual(t, i, 0, "the template has no step %s", name)
	return tmpl.Steps[i]
}

// Accepts returns the error with which the template's input schema refuses the
// context, or nil.
func (tmpl Template) Accepts(t testing.TB, taskContext string) error {
	t.Helper()
	raw, err := json.Marshal(tmpl.InputSchema)
	require.NoError(t, err)
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	require.NoError(t, compiler.AddResource("input.json", schema))
	compiled, err := compiler.Compile("input.json")
	require.NoError(t, err)
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(taskContext))
	require.NoError(t, err)
	return compiled.Validate(value)
}

// Run is the outcome of a task.
type Run struct {
	Results  map[string]json.RawMessage // by step
	Metadata map[string]json.RawMessage // by step
	Failed   string                     // the step that failed; the run ends there
	Err      error                      // its error
}

// Execute runs a task with the given context to its end or its first failure.
// With an environment, the configuration it names is merged into the steps'.
func (tmpl Template) Execute(t testing.TB, handlers map[string]handler.Handler, environment, taskContext string) Run {
	t.Helper()
	run := Run{Results: map[string]json.RawMessage{}, Metadata: map[string]json.RawMessage{}}
	ancestors := map[string][]string{}
	for len(run.Results) < len(tmpl.Steps) {
		step, ok := tmpl.next(run)
		require.True(t, ok, "no step can run: the template has a cycle or an unknown parent")
		above := ancestorsOf(step, ancestors)
		ancestors[step.Name] = above
		h, ok := handlers[step.Handler]
		require.True(t, ok, "step %s: nobody serves %s", step.Name, step.Handler)

		result, err := h.Handle(t.Context(), tmpl.attempt(t, step, environment, taskContext, above, run))
		if err != nil {
			run.Failed, run.Err = step.Name, err
			return run
		}
		metadata, err := json.Marshal(result.Metadata)
		require.NoError(t, err)
		run.Results[step.Name], run.Metadata[step.Name] = result.Value, metadata
	}
	return run
}

// next returns a step whose parents have all run. It takes the last one, so
// that nothing comes to rely on the order in the file.
func (tmpl Template) next(run Run) (Step, bool) {
	for _, step := range slices.Backward(tmpl.Steps) {
		_, done := run.Results[step.Name]
		waits := slices.ContainsFunc(step.DependsOn, func(parent string) bool {
			_, ok := run.Results[parent]
			return !ok
		})
		if !done && !waits {
			return step, true
		}
	}
	return Step{}, false
}

func ancestorsOf(step Step, ancestors map[string][]string) []string {
	all := slices.Clone(step.DependsOn)
	for _, parent := range step.DependsOn {
		all = append(all, ancestors[parent]...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (tmpl Template) attempt(t testing.TB, step Step, environment, taskContext string, above []string, run Run) handler.Step {
	t.Helper()
	cfg := map[string]any{}
	maps.Copy(cfg, step.Config)
	maps.Copy(cfg, tmpl.Environments[environment].Steps[step.Name].Config)
	raw, err := json.Marshal(cfg)
	require.NoError(t, err)
	dependencies := map[string]json.RawMessage{}
	for _, name := range above {
		dependencies[name] = run.Results[name]
	}
	return handler.Step{
		TaskUUID:       TaskUUID,
		Namespace:      tmpl.Namespace,
		Task:           tmpl.Name,
		Version:        tmpl.Version,
		Name:           step.Name,
		Handler:        step.Handler,
		Attempt:        1,
		MaxAttempts:    max(step.Retry.MaxAttempts, 1),
		IdempotencyKey: TaskUUID + "/" + step.Name,
		Context:        json.RawMessage(taskContext),
		Config:         raw,
		Dependencies:   dependencies,
	}
}

// RequireError requires that err is a classified error of the given code, and
// returns it.
func RequireError(t testing.TB, err error, code string) *handler.Error {
	t.Helper()
	var classified *handler.Error
	require.ErrorAs(t, err, &classified)
	require.Equal(t, code, classified.Code, "%v", err)
	require.NotEmpty(t, classified.Message)
	_, marshalErr := json.Marshal(classified.Context)
	require.NoError(t, marshalErr, "the error's context")
	return classified
}
