package readmodel

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
}

// Settled reports whether the task moves no more by itself.
func (s *Snapshot) Settled() bool { return Settled(s.State) }

// Revision names the snapshot's content: equal content has an equal revision,
// on every host and after every restart. It is opaque and safe in a header.
func (s *Snapshot) Revision() string {
	h := fnv.New64a()
	p := s.Progress
	_, _ = fmt.Fprintf(h, "%s %d %d %d %d %d %d %d %q", s.State,
		p.Total, p.Completed, p.Failed, p.InProgress, p.Enqueued, p.Pending, p.Cancelled, s.StateReason)
	return fmt.Sprintf("%016x", h.Sum64())
}
