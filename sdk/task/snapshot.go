package task

import (
	"fmt"
	"hash/fnv"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Snapshot is what a watcher of a task sees: small and cheap to read.
type Snapshot struct {
	UUID        string          `json:"uuid" format:"uuid"`
	State       vocab.TaskState `json:"state" enum:"pending,in_progress,complete,error,cancelled,resolved_manually"`
	Progress    Progress        `json:"progress"`
	StateReason string          `json:"state_reason,omitempty"`
	Error       *TaskError      `json:"error,omitempty"`
	Running     []RunningStep   `json:"running,omitempty" doc:"Running steps that report progress. For steps on other hosts it may be a second late."`
}

// RunningStep is a running step that reports its progress.
type RunningStep struct {
	Number int    `json:"number"`
	Step   string `json:"step" doc:"The step's name."`
	StepProgress
}

// StepProgress is the progress that a running step reports. Nothing depends on it.
type StepProgress struct {
	Percent int    `json:"percent" minimum:"0" maximum:"100"`
	Note    string `json:"note,omitempty"`
}

// Settled reports whether the task no longer moves by itself.
func (s *Snapshot) Settled() bool { return Settled(s.State) }

// Revision identifies the snapshot's content: equal content has an equal revision, on every
// host and after every restart. It is opaque and safe in a header. The progress that running
// steps report is part of the content.
func (s *Snapshot) Revision() string {
	h := fnv.New64a()
	p := s.Progress
	_, _ = fmt.Fprintf(h, "%s %d %d %d %d %d %d %d %q", s.State,
		p.Total, p.Completed, p.Failed, p.InProgress, p.Enqueued, p.Pending, p.Cancelled, s.StateReason)
	for _, r := range s.Running {
		_, _ = fmt.Fprintf(h, " %d %d %q", r.Number, r.Percent, r.Note)
	}
	return fmt.Sprintf("%016x", h.Sum64())
}
