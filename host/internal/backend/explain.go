package backend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Bounds on what an explanation looks at.
const (
	explainedSteps = 5000 // of a task
	shownSteps     = 50   // in an explanation
	queuePlaces    = 1000 // of a queue
)

// surroundings is everything besides the step itself that may keep it from running.
type surroundings struct {
	now     time.Time
	queue   readmodel.Queue
	hosts   []readmodel.Host
	plugins []readmodel.Plugin // of this host
	ahead   func(step string) (int, bool, error)
}

// ExplainStep implements [api.Explain].
func (b *Backend) ExplainStep(ctx context.Context, id api.StepID) (readmodel.Explanation, error) {
	task, err := b.Task(ctx, id.Task)
	if err != nil {
		return readmodel.Explanation{}, err
	}
	// Everything above a step has a smaller number.
	steps, err := b.Store.ReadSteps(ctx, id.Task, -1, id.Number+1)
	if err != nil {
		return readmodel.Explanation{}, stepFault(id, err)
	}
	if len(steps) <= id.Number {
		return readmodel.Explanation{}, api.NotFound(api.CodeStepNotFound, "there is no step %s", id)
	}
	s, err := b.surroundings(ctx, task.Namespace)
	if err != nil {
		return readmodel.Explanation{}, err
	}
	e, err := s.explain(&steps[id.Number], steps)
	return e, fault(err)
}

// ExplainTask implements [api.Explain]. A task is explained by one of its steps: by one
// that runs, else by the first that could.
func (b *Backend) ExplainTask(ctx context.Context, id vocab.UUID) (readmodel.TaskExplanation, error) {
	task, err := b.Task(ctx, id)
	if err != nil {
		return readmodel.TaskExplanation{}, err
	}
	out := readmodel.TaskExplanation{Explanation: readmodel.Explanation{TaskUUID: task.UUID, State: string(task.State)}}
	if task.Settled() {
		out.Cause, out.Text = settledTask(&task)
	}
	steps, err := b.Store.ReadSteps(ctx, id, -1, explainedSteps)
	if err != nil {
		return readmodel.TaskExplanation{}, taskFault(id, err)
	}
	s, err := b.surroundings(ctx, task.Namespace)
	if err != nil {
		return readmodel.TaskExplanation{}, err
	}
	for i := range steps {
		if st := &steps[i]; len(out.Steps) == shownSteps || !concerns(st, steps, task.Settled()) {
			continue
		}
		e, err := s.explain(&steps[i], steps)
		if err != nil {
			return readmodel.TaskExplanation{}, fault(err)
		}
		out.Steps = append(out.Steps, e)
	}
	if out.Cause == "" {
		out.Cause, out.Text, out.Until = activeTask(out.Steps)
	}
	return out, nil
}

// concerns reports whether a step says something about its task: it can move, or it has
// failed for good.
func concerns(st *readmodel.Step, steps []readmodel.Step, ended bool) bool {
	return st.State == vocab.StepError || !ended && !st.State.Settled() && len(unsatisfied(st, steps)) == 0
}

func settledTask(t *readmodel.Task) (readmodel.Cause, string) {
	switch t.State {
	case vocab.TaskError:
		return readmodel.CauseFailed, fmt.Sprintf("it failed: %s; `tasker task retry %s` runs its failed steps again", t.StateReason, t.UUID)
	case vocab.TaskCancelled:
		return readmodel.CauseCancelled, "it was " + t.StateReason
	default:
		return readmodel.CauseFinished, "it is finished: " + t.StateReason
	}
}

func activeTask(steps []readmodel.Explanation) (readmodel.Cause, string, *time.Time) {
	var first *readmodel.Explanation
	moving := 0
	for i := range steps {
		e := &steps[i]
		if e.State == string(vocab.StepError) {
			continue
		}
		moving++
		if first == nil || e.Cause == readmodel.CauseRunning && first.Cause != readmodel.CauseRunning {
			first = e
		}
	}
	if first == nil {
		return readmodel.CauseStalled, "nothing in it can move; the next sweep ends it", nil
	}
	text := fmt.Sprintf("step %s: %s", first.Step, first.Text)
	if moving > 1 {
		text += fmt.Sprintf("; %d more could move", moving-1)
	}
	return first.Cause, text, first.Until
}

func (b *Backend) surroundings(ctx context.Context, namespace string) (*surroundings, error) {
	hosts, err := b.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	queue, err := b.Queue(ctx, namespace)
	if err != nil {
		return nil, err
	}
	plugins, err := b.Plugins(ctx)
	if err != nil {
		return nil, err
	}
	return &surroundings{
		now: b.Now(), queue: queue, hosts: hosts, plugins: plugins,
		ahead: func(step string) (int, bool, error) { return b.Store.QueuePlace(ctx, queue.Queue, step, queuePlaces) },
	}, nil
}

// explain says why a step does not run. steps are the steps of its task, at least those
// up to the step.
func (s *surroundings) explain(st *readmodel.Step, steps []readmodel.Step) (readmodel.Explanation, error) {
	e := readmodel.Explanation{TaskUUID: st.TaskUUID, StepUUID: st.UUID, Step: st.Name, State: string(st.State)}
	parents := unsatisfied(st, steps)
	switch {
	case st.State.Settled():
		e.Cause, e.Text = settledStep(st)
	case st.State == vocab.StepInProgress:
		e.Cause, e.Text, e.Until = s.running(st)
	case len(parents) > 0:
		e.Cause, e.Text = waiting(parents, steps)
	case st.DueAt != nil && st.DueAt.After(s.now):
		e.Cause, e.Until = readmodel.CauseRetryDue, st.DueAt
		e.Text = fmt.Sprintf("it waits until %s", at(*st.DueAt))
		if st.Error != nil {
			e.Text += fmt.Sprintf(" for attempt %d of %d; the last failed: %s", st.Attempts+1, st.MaxAttempts, st.Error.Message)
		} else {
			e.Text += ": it was given back because its plugin or host was lost"
		}
	case s.queue.Paused != nil:
		e.Cause, e.Text = readmodel.CausePaused, paused(&s.queue)
	default:
		return s.unclaimed(e, st)
	}
	return e, nil
}

func settledStep(st *readmodel.Step) (readmodel.Cause, string) {
	when := ""
	if st.FinishedAt != nil {
		when = " at " + at(*st.FinishedAt)
	}
	switch {
	case st.State == vocab.StepComplete:
		return readmodel.CauseFinished, "it was completed" + when
	case st.State == vocab.StepResolvedManually:
		return readmodel.CauseFinished, "an operator declared it done" + when
	case st.State == vocab.StepCancelled:
		return readmodel.CauseCancelled, "it was cancelled with its task" + when
	case st.Error != nil && st.Error.Type == vocab.ClaimsExhausted:
		return readmodel.CauseClaims, fmt.Sprintf("it failed for good%s: %s", when, st.Error.Message)
	case st.Error != nil:
		return readmodel.CauseFailed, fmt.Sprintf("it failed for good%s, in attempt %d of %d: %s", when, st.Attempts, st.MaxAttempts, st.Error.Message)
	default:
		return readmodel.CauseFailed, "it failed for good" + when
	}
}

func (s *surroundings) running(st *readmodel.Step) (readmodel.Cause, string, *time.Time) {
	l := st.Lease
	if l == nil || l.ExpiresAt == nil {
		return readmodel.CauseRunning, "it is running", nil
	}
	if l.ExpiresAt.Before(s.now) {
		return readmodel.CauseLeaseOver, fmt.Sprintf("it ran on %s, whose lease ended at %s: the next sweep gives it back", l.Holder, at(*l.ExpiresAt)), nil
	}
	since := ""
	if st.StartedAt != nil {
		since = " (since " + at(*st.StartedAt) + ")"
	}
	return readmodel.CauseRunning, fmt.Sprintf("it is running on %s%s, whose lease lasts until %s unless it is extended", l.Holder, since, at(*l.ExpiresAt)), l.ExpiresAt
}

// unsatisfied returns the parents of a step that are neither complete nor
// resolved.
func unsatisfied(st *readmodel.Step, steps []readmodel.Step) (open []*readmodel.Step) {
	for _, name := range st.Parents {
		if p := stepNamed(name, steps); p != nil && !p.State.Satisfies() {
			open = append(open, p)
		}
	}
	return open
}

func stepNamed(name string, steps []readmodel.Step) *readmodel.Step {
	if i := slices.IndexFunc(steps, func(s readmodel.Step) bool { return s.Name == name }); i >= 0 {
		return &steps[i]
	}
	return nil
}

// waiting explains a step by the steps above it: by one that failed for good, or by its
// own parents.
func waiting(parents []*readmodel.Step, steps []readmodel.Step) (readmodel.Cause, string) {
	seen := map[string]bool{}
	for queue := slices.Clone(parents); len(queue) > 0; queue = queue[1:] {
		p := queue[0]
		if p.State == vocab.StepError {
			text := fmt.Sprintf("step %s, on which it depends, failed for good", p.Name)
			if p.Error != nil {
				text += ": " + p.Error.Message
			}
			return readmodel.CauseBlocked, text
		}
		if !seen[p.Name] {
			seen[p.Name] = true
			queue = append(queue, unsatisfied(p, steps)...)
		}
	}
	names := make([]string, 0, len(parents))
	for _, p := range parents {
		names = append(names, fmt.Sprintf("%s (%s)", p.Name, p.State))
	}
	return readmodel.CauseParents, "it waits for " + few(names)
}

func paused(q *readmodel.Queue) string {
	text := fmt.Sprintf("its queue, %s, has been paused since %s", q.Namespace, at(q.Paused.Since))
	if q.Paused.By != "" {
		text += " by " + q.Paused.By
	}
	if q.Paused.Reason != "" {
		text += ": " + q.Paused.Reason
	}
	return text
}

// unclaimed explains a step that may run but that nobody has claimed.
func (s *surroundings) unclaimed(e readmodel.Explanation, st *readmodel.Step) (readmodel.Explanation, error) {
	var takes, drains []string
	alive := false
	for i := range s.hosts {
		h := &s.hosts[i]
		if !h.Alive {
			continue
		}
		alive = true
		switch serves := slices.Contains(h.Served, st.Handler); {
		case serves && (h.State == "normal" || h.State == "startup"):
			takes = append(takes, h.Name)
		case serves:
			drains = append(drains, h.Name)
		}
	}
	switch {
	case len(takes) > 0:
		ahead, found, err := s.ahead(e.StepUUID)
		if err != nil {
			return e, err
		}
		e.Cause, e.Text = readmodel.CauseQueued, fmt.Sprintf("%s; %s is served by %s", place(ahead, found, s.queue.Queue), st.Handler, few(takes))
	case len(drains) > 0:
		e.Cause, e.Text = readmodel.CauseDraining, fmt.Sprintf("only hosts that are shutting down serve its handler %s: %s", st.Handler, few(drains))
	case !alive:
		e.Cause, e.Text = readmodel.CauseNoHost, "no host is alive to run it"
	default:
		e.Cause, e.Text = s.unserved(st.Handler)
	}
	return e, nil
}

func place(ahead int, found bool, queue string) string {
	switch {
	case !found:
		return fmt.Sprintf("it waits in %s behind at least %d others, or its message is about to be sent again", queue, queuePlaces)
	case ahead == 0:
		return "it is next in " + queue
	case ahead == 1:
		return fmt.Sprintf("it waits in %s behind another", queue)
	default:
		return fmt.Sprintf("it waits in %s behind %d others", queue, ahead)
	}
}

// pluginCauses maps the state of a plugin that serves nothing to a cause, beginning with
// the one that a person has to act on first.
var pluginCauses = []struct {
	state string
	cause readmodel.Cause
}{
	{readmodel.PluginRefused, readmodel.CauseRefused},
	{string(pluginhost.Failed), readmodel.CauseBreakerOpen},
	{string(pluginhost.BackingOff), readmodel.CauseBackingOff},
	{string(pluginhost.Starting), readmodel.CauseStarting},
	{string(pluginhost.Stopped), readmodel.CauseStopped},
}

// unserved explains that no live host serves a handler. If some plugins of this host do
// not serve now, the handler may belong to one of them.
func (s *surroundings) unserved(handler string) (readmodel.Cause, string) {
	text := fmt.Sprintf("no live host serves its handler %s", handler)
	for _, c := range pluginCauses {
		for i := range s.plugins {
			p := &s.plugins[i]
			if p.State != c.state || p.Kind != "handler" {
				continue
			}
			text += fmt.Sprintf("; on this host, plugin %s is %s", p.Name, p.State)
			if p.Message != "" {
				text += ": " + p.Message
			}
			return c.cause, text
		}
	}
	return readmodel.CauseUnserved, text + ", and no plugin of this host is about to; see `tasker plugin list` and `tasker host list`"
}

// few joins the first of many names.
func few(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}

func at(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
