package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// What the stories do again and again.

// pluginTable is a plugin's table in plugins.toml. It may take long to start,
// unless more says otherwise: the machine may stand still.
func pluginTable(name, path, more string) string {
	if !strings.Contains(more, "start_timeout") {
		more = strings.TrimSuffix("start_timeout = \"2m\"\n"+more, "\n")
	}
	return fmt.Sprintf("[plugin.handler.%s]\npath = %q\n%s\n", name, path, more)
}

// oneStep is a template e2e/NAME with one step.
func oneStep(name, handler, more string) string {
	return fmt.Sprintf("namespace: e2e\nname: %s\nversion: 1.0.0\nsteps:\n  - name: only\n    handler: %s\n%s", name, handler, more)
}

// example reads a file of the examples.
func example(t *testing.T, path string) []byte {
	t.Helper()
	src, err := os.ReadFile(filepath.Join("../../../plugins/examples", filepath.FromSlash(path)))
	require.NoError(t, err)
	return src
}

func applyExample(t *testing.T, h *host, path string) {
	t.Helper()
	applyTemplate(t, h, string(example(t, path)))
}

func applyTemplate(t *testing.T, h *host, src string) {
	t.Helper()
	_, _, err := h.ApplyTemplate(t.Context(), "e2e.yaml", []byte(src))
	require.NoError(t, err)
}

func submit(t *testing.T, h *host, namespace, name, input string) string {
	t.Helper()
	task, created, err := h.Submit(t.Context(), client.Submission{Namespace: namespace, Name: name, Context: json.RawMessage(input)})
	require.NoError(t, err)
	require.True(t, created)
	return task.UUID
}

// settled waits for the end of a task.
func settled(t *testing.T, h *host, id string) readmodel.Task {
	t.Helper()
	var task readmodel.Task
	eventually(t, patience, "the task is settled", func() bool {
		var err error
		task, err = h.Task(t.Context(), id)
		return err == nil && task.Settled()
	})
	return task
}

func runTask(t *testing.T, h *host, namespace, name, input string) readmodel.Task {
	t.Helper()
	return settled(t, h, submit(t, h, namespace, name, input))
}

// awaitStep waits until a step of the task is in a state, and returns it.
func awaitStep(t *testing.T, h *host, id string, state vocab.StepState) readmodel.Step {
	t.Helper()
	var found readmodel.Step
	eventually(t, patience, "a step is "+string(state), func() bool {
		steps, err := h.Steps(t.Context(), id)
		for _, s := range steps {
			if s.State == state {
				found = s
				return err == nil
			}
		}
		return false
	})
	return found
}
