package sdk

import (
	"time"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// progressPace is the minimum time between two reports of one step.
const progressPace = 250 * time.Millisecond

// progress is what a running step reports about itself. The stream's lock guards
// it.
type progress struct {
	percent uint32
	note    string
	sent    time.Time // of the last report
	queued  bool      // a report is on its way, or a timer will send one
}

// report accepts a step's progress. It is sent at once if the step was quiet for
// a while; otherwise the latest is sent later.
func (w *stream) report(c *call, percent int, note string) {
	note = clean(note, wire.MaxNoteBytes)
	w.mu.Lock()
	defer w.mu.Unlock()
	c.progress.percent, c.progress.note = uint32(min(max(percent, 0), 100)), note
	if c.progress.queued {
		return
	}
	c.progress.queued = true
	if wait := progressPace - time.Since(c.progress.sent); wait > 0 {
		time.AfterFunc(wait, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.queue(c)
		})
		return
	}
	w.queue(c)
}

// queue lets the step's report be sent, if the step is still running. The caller
// holds the lock.
func (w *stream) queue(c *call) {
	if w.dead || w.calls[c.outcome.CallId] != c {
		return
	}
	w.reports = append(w.reports, c)
	w.signal()
}

// takeReports returns some of the reports to send; those of steps that have
// ended are dropped. The caller holds the lock.
func (w *stream) takeReports() []*pluginv1.Progress {
	if len(w.reports) == 0 {
		return nil
	}
	n := min(len(w.reports), maxBatchOutcomes)
	now := time.Now()
	var messages []*pluginv1.Progress
	for _, c := range w.reports[:n] {
		if w.calls[c.outcome.CallId] != c {
			continue
		}
		c.progress.queued, c.progress.sent = false, now
		messages = append(messages, &pluginv1.Progress{
			CallId: c.outcome.CallId, Percent: c.progress.percent, Note: c.progress.note,
		})
	}
	w.reports = append(w.reports[:0:0], w.reports[n:]...)
	return messages
}
