package cli

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func TestPositionShowsRunningSteps(t *testing.T) {
	t.Parallel()
	s := readmodel.Snapshot{State: vocab.TaskInProgress, Progress: readmodel.Progress{Total: 9, Completed: 1}}
	require.Equal(t, "1/9 in_progress", position(&s))
	for _, name := range []string{"resize", "upload", "notify", "index", "log"} {
		s.Running = append(s.Running, readmodel.RunningStep{Step: name, StepProgress: readmodel.StepProgress{Percent: 40}})
	}
	s.Running[0].Note = "12 of 30\x1b[31m\npages"
	require.Equal(t, `1/9 in_progress  resize 40% 12 of 30\x1b[31m\npages  upload 40%  notify 40%  +2 more`, position(&s))
}

// A line that repeats the one before is not printed.
func TestLinesAreOfChanges(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	show := (&app{out: &out}).progress([]readmodel.Task{{Name: "a", UUID: "1"}, {Name: "b", UUID: "2"}}, true)
	one := readmodel.Snapshot{State: vocab.TaskInProgress, Progress: readmodel.Progress{Total: 9, Completed: 1}}
	two := one
	two.Progress.Completed = 2
	for _, s := range []*readmodel.Snapshot{&one, &one, &two, &two} {
		show.update(0, s)
		show.update(1, s)
	}
	require.Equal(t, "a 1  1/9 in_progress\nb 2  1/9 in_progress\na 1  2/9 in_progress\nb 2  2/9 in_progress\n", out.String())
}
