package backend_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/backend"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func TestSubmitRunsATaskToItsEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, pairYAML)
	s := pairSubmission()
	s.Priority, s.Tags, s.Initiator, s.SourceSystem, s.Reason = new(3), []string{"a", `"b"`}, "ann", "shop", "wanted"
	task, created, err := b.Submit(t.Context(), s)
	require.NoError(t, err)
	require.True(t, created)
	require.Equal(t, "1.0.0", task.Version)
	require.Equal(t, 3, task.Priority)
	require.Equal(t, []string{"a", `"b"`}, task.Tags)
	require.Equal(t, []string{"ann", "shop", "wanted"}, []string{task.Initiator, task.SourceSystem, task.Reason})
	require.JSONEq(t, string(s.Context), string(task.Context))

	id := parse(t, task.UUID)
	b.watchUntil(t, id, func(s readmodel.Snapshot) bool { return s.Progress.Completed == 1 })
	close(b.handlers.hold)
	end := b.watchUntil(t, id, func(s readmodel.Snapshot) bool { return s.Settled() })
	require.Equal(t, vocab.TaskComplete, end.State)

	steps, err := b.Steps(t.Context(), id, api.PageQuery{After: -1, Limit: 10})
	require.NoError(t, err)
	require.Equal(t, twoTo128, string(steps[1].Result))
	history, err := b.History(t.Context(), id, api.PageQuery{After: -1, Limit: 100})
	require.NoError(t, err)
	require.Equal(t, "complete", history[len(history)-1].To)
	require.Empty(t, history[len(history)-1].Step)

	list, err := b.ListTasks(t.Context(), api.TaskQuery{Name: "pair", Limit: 10})
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, task.UUID, list[0].UUID)
}

func TestSubmitTakesTheHighestVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, pairYAML)
	b.apply(t, version(pairYAML, "1.10.0"))
	b.apply(t, version(pairYAML, "1.9.0"))
	task, _, err := b.Submit(t.Context(), pairSubmission())
	require.NoError(t, err)
	require.Equal(t, "1.10.0", task.Version)
	shown, err := b.Template(t.Context(), api.TemplateID{Namespace: "linear", Name: "pair", Version: "1.10.0"})
	require.NoError(t, err)
	require.InDelta(t, 0.1, shown.Steps[0].Retry.Jitter, 0, "as it was written")
}

func TestSubmitSaysWhichTemplatesThereAre(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := pairSubmission()
	_, _, err := b.Submit(t.Context(), s)
	require.Contains(t, faultOf(t, err, api.ErrInvalid, api.CodeTemplateNotFound).Detail, "apply one first")
	for version, name := range map[string]string{backend.Latest: "linear/pair", "1.2.3": "linear/pair 1.2.3"} {
		_, err := b.Template(t.Context(), api.TemplateID{Namespace: "linear", Name: "pair", Version: version})
		require.Equal(t, "there is no template "+name+"; see 'tasker template list'",
			faultOf(t, err, api.ErrNotFound, api.CodeTemplateNotFound).Detail)
	}

	b.apply(t, pairYAML)
	s.Version = "9.9.9"
	_, _, err = b.Submit(t.Context(), s)
	f := faultOf(t, err, api.ErrInvalid, api.CodeTemplateNotFound)
	require.Equal(t, "template linear/pair has no version 9.9.9; available: 1.0.0", f.Detail)
	require.Equal(t, "/version", f.Issues[0].Pointer)

	s.Version, s.Name = "", "pear"
	_, _, err = b.Submit(t.Context(), s)
	f = faultOf(t, err, api.ErrInvalid, api.CodeTemplateNotFound)
	require.Equal(t, "there is no template linear/pear; available: linear/pair", f.Detail)
	require.Equal(t, "/name", f.Issues[0].Pointer)
}

func TestSubmitPointsAtWhatIsWrongWithAContext(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, pairYAML)
	s := pairSubmission()
	s.Context = json.RawMessage(`{"n": -1, "a/b": 5}`)
	_, _, err := b.Submit(t.Context(), s)
	f := faultOf(t, err, api.ErrInvalid, api.CodeContextInvalid)
	var pointers []string
	for _, i := range f.Issues {
		pointers = append(pointers, i.Pointer)
		require.NotEmpty(t, i.Detail)
	}
	require.Equal(t, []string{"/context/a~1b", "/context/n"}, pointers)

	s.Context = json.RawMessage(`{"n": 1, "x": {"y": "\u0000"}}`)
	_, _, err = b.Submit(t.Context(), s)
	f = faultOf(t, err, api.ErrInvalid, api.CodePayloadInvalid)
	require.Equal(t, "/context/x/y", f.Issues[0].Pointer)
}

func TestSubmitWithAKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, pairYAML)
	s := pairSubmission()
	s.IdempotencyKey = "order-1"
	first, created, err := b.Submit(t.Context(), s)
	require.NoError(t, err)
	require.True(t, created)
	again, created, err := b.Submit(t.Context(), s)
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, first.UUID, again.UUID)
	s.Context = json.RawMessage(`{"n": 1}`)
	_, _, err = b.Submit(t.Context(), s)
	require.Equal(t, first.UUID, faultOf(t, err, api.ErrConflict, api.CodeIdempotencyKeyReused).TaskUUID)
}

// Many submissions of one missing template look up the existing ones only once.
func TestSubmitManyOfNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, pairYAML)
	good := pairSubmission()
	bad, older := good, good
	bad.Name, bad.Version, older.Version = "nothing", "", "0.9.0"
	answers := b.SubmitMany(t.Context(), []api.Submission{bad, older, good, bad, older})
	require.NoError(t, answers[2].Err)
	for first, again := range map[int]int{0: 3, 1: 4} {
		f := faultOf(t, answers[first].Err, api.ErrInvalid, api.CodeTemplateNotFound)
		require.Contains(t, f.Detail, "available: ", "the available versions are listed")
		require.Same(t, f, faultOf(t, answers[again].Err, api.ErrInvalid, api.CodeTemplateNotFound))
	}
}

func TestSubmitIsRefusedWhileTheHostDrains(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, pairYAML)
	b.engine.Drain(t.Context())
	_, _, err := b.Submit(t.Context(), pairSubmission())
	require.Positive(t, faultOf(t, err, api.ErrUnavailable, api.CodeUnavailable).RetryAfter)
}

func TestCancel(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, pairYAML)
	id := b.submit(t)
	b.watchUntil(t, id, func(s readmodel.Snapshot) bool { return s.Progress.Completed == 1 })
	for range 2 { // the second time changes nothing
		task, err := b.CancelTask(t.Context(), id, api.Operator{Reason: "a mistake"})
		require.NoError(t, err)
		require.Equal(t, vocab.TaskCancelled, task.State)
		require.Equal(t, "cancelled: a mistake", task.StateReason)
	}
	close(b.handlers.hold)
	done := b.submit(t)
	b.watchUntil(t, done, func(s readmodel.Snapshot) bool { return s.Settled() })
	_, err := b.CancelTask(t.Context(), done, api.Operator{Reason: "too late"})
	faultOf(t, err, api.ErrConflict, api.CodeTaskNotCancellable)
}

func TestFailedTaskSaysWhichStepAndWhy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, "namespace: linear\nname: pair\nversion: 1.0.0\nsteps:\n  - {name: only, handler: math.broken}\n")
	id := b.submit(t)
	end := b.watchUntil(t, id, func(s readmodel.Snapshot) bool { return s.Settled() })
	require.Equal(t, vocab.TaskError, end.State)
	require.Equal(t, &readmodel.TaskError{
		StepUUID: vocab.StepID(id, 0).String(), Step: "only", Attempts: 1,
		StepError: readmodel.StepError{Type: vocab.PermanentError, Code: "BROKEN", Message: "it is broken"},
	}, end.Error)
}

func TestUnknownTaskIsNotFound(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := parse(t, "019ca9d2-7c00-7000-8000-000000000000")
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"show":    func() error { _, err := b.Task(ctx, id); return err },
		"steps":   func() error { _, err := b.Steps(ctx, id, api.PageQuery{After: -1, Limit: 1}); return err },
		"history": func() error { _, err := b.History(ctx, id, api.PageQuery{After: -1, Limit: 1}); return err },
		"watch":   func() error { _, err := b.Watch(ctx, id, ""); return err },
		"cancel":  func() error { _, err := b.CancelTask(ctx, id, api.Operator{Reason: ""}); return err },
	} {
		t.Run(name, func(t *testing.T) { faultOf(t, call(), api.ErrNotFound, api.CodeTaskNotFound) })
	}
}

func TestWatchWaitsForAChangeAndEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.apply(t, pairYAML)
	id := b.submit(t)
	held := b.watchUntil(t, id, func(s readmodel.Snapshot) bool { return s.Progress.Completed == 1 && s.Progress.InProgress == 1 })

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	same, err := b.Watch(ctx, id, held.Revision())
	if err == nil { // otherwise the context ended in the middle of a query
		require.Equal(t, held.Revision(), same.Revision(), "%+v, before %+v", same, held)
		require.Error(t, ctx.Err(), "nothing changed: it waits as long as allowed")
	} else {
		end, _ := ctx.Deadline()
		require.Less(t, time.Until(end), 20*time.Millisecond, "%v: a look fails with the end of the context, or a moment before", err)
	}

	go close(b.handlers.hold)
	end, err := b.Watch(t.Context(), id, held.Revision())
	require.NoError(t, err)
	require.NotEqual(t, held.Revision(), end.Revision())
}

// nowhere is a store whose database does not respond.
func nowhere(t *testing.T) *store.Store {
	t.Helper()
	pool, err := store.OpenPool(t.Context(), store.PoolConfig{
		URL: "postgres://nobody@/nothing?host=" + t.TempDir(), ConnectTimeout: time.Second, StatementTimeout: time.Second,
	})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return store.New(pool)
}

// A task that was created but cannot be read is not an error: the client would submit it
// again.
func TestSubmitAnswersEvenIfTheTaskCannotBeRead(t *testing.T) {
	t.Parallel()
	up := setup(t)
	up.apply(t, pairYAML)
	parts := up.parts
	parts.Store = nowhere(t)
	s := pairSubmission()
	s.Version, s.Priority = "1.0.0", new(2)
	task, created, err := backend.New(parts, backend.Config{}).Submit(t.Context(), s)
	require.NoError(t, err)
	require.True(t, created)
	stored, err := up.Task(t.Context(), parse(t, task.UUID))
	require.NoError(t, err)
	require.Equal(t, []any{stored.Namespace, stored.Name, stored.Version, stored.Priority},
		[]any{task.Namespace, task.Name, task.Version, task.Priority})
}

// A namespace whose queue is one of the host's inboxes would take its messages.
func TestNamespaceOfAnInbox(t *testing.T) {
	t.Parallel()
	up := setup(t)
	b := backend.New(up.parts, backend.Config{Reserved: []string{"task_requests"}})
	_, _, err := b.ApplyTemplate(t.Context(), "t.yaml", []byte(strings.Replace(pairYAML, "namespace: ", "namespace: task_requests #", 1)))
	f := faultOf(t, err, api.ErrInvalid, api.CodeTemplateInvalid)
	require.Contains(t, f.Issues[0].Detail, "the queue of task_requests would be one of the host's own")
	_, _, err = b.ApplyTemplate(t.Context(), "t.yaml", []byte(pairYAML))
	require.NoError(t, err)
}

func TestWithoutADatabaseEverythingIsUnavailable(t *testing.T) {
	t.Parallel()
	up := setup(t)
	parts := up.parts
	parts.Store = nowhere(t)
	b := backend.New(parts, backend.Config{Heartbeat: time.Hour})
	ctx := t.Context()
	var id vocab.UUID
	for name, call := range map[string]func() error{
		"submit":    func() error { _, _, err := b.Submit(ctx, pairSubmission()); return err },
		"show":      func() error { _, err := b.Task(ctx, id); return err },
		"list":      func() error { _, err := b.ListTasks(ctx, api.TaskQuery{Limit: 1}); return err },
		"steps":     func() error { _, err := b.Steps(ctx, id, api.PageQuery{After: -1, Limit: 1}); return err },
		"watch":     func() error { _, err := b.Watch(ctx, id, ""); return err },
		"apply":     func() error { _, _, err := b.ApplyTemplate(ctx, "x.yaml", []byte(pairYAML)); return err },
		"validate":  func() error { _, err := b.ValidateTemplate(ctx, "x.yaml", []byte(pairYAML)); return err },
		"templates": func() error { _, err := b.ListTemplates(ctx, api.TemplateQuery{Limit: 1}); return err },
		"template":  func() error { _, err := b.Template(ctx, api.TemplateID{Version: "latest"}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			require.Positive(t, faultOf(t, call(), api.ErrUnavailable, api.CodeUnavailable).RetryAfter)
		})
	}
	report, err := b.Doctor(ctx)
	require.NoError(t, err)
	require.Equal(t, readmodel.DoctorFail, report.Status)
	require.Equal(t, readmodel.HealthOK, b.Live(ctx).Status)
}

func TestValuesThatCannotBeStoredAreTheClientsFault(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.ListTasks(t.Context(), api.TaskQuery{Tags: []string{"a\x00b"}, Limit: 1})
	faultOf(t, err, api.ErrInvalid, api.CodeValidationFailed)
	_, err = b.ListTasks(t.Context(), api.TaskQuery{Namespace: "a\x00b", Limit: 1})
	faultOf(t, err, api.ErrInvalid, api.CodeValidationFailed)
}

func TestSubmitOfAnIdentity(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rejecting := b.apply(t, strings.Replace(pairYAML, "version: 1.0.0\n", "version: 1.0.0\nidentity: reject\n", 1))
	require.Equal(t, "reject", rejecting.Identity)
	s := pairSubmission()
	s.Context = json.RawMessage(`{"n": 1, "a/b": "x"}`)
	first, created, err := b.Submit(t.Context(), s)
	require.NoError(t, err)
	require.True(t, created)
	s.Context = json.RawMessage(`{"a\/b":"x","n":1}`) // the same, written differently
	_, _, err = b.Submit(t.Context(), s)
	fault := faultOf(t, err, api.ErrConflict, api.CodeDuplicateIdentity)
	require.Equal(t, first.UUID, fault.TaskUUID)
	require.Contains(t, fault.Detail, "task "+first.UUID+" ")

	b.apply(t, strings.Replace(pairYAML, "version: 1.0.0\n", "version: 1.0.1\nidentity: return_existing\n", 1))
	returning, err := b.Template(t.Context(), api.TemplateID{Namespace: s.Namespace, Name: s.Name, Version: "1.0.1"})
	require.NoError(t, err)
	require.Equal(t, "return_existing", returning.Identity)
	second, created, err := b.Submit(t.Context(), s)
	require.NoError(t, err)
	require.True(t, created, "another version is another identity")
	again, created, err := b.Submit(t.Context(), s)
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, second.UUID, again.UUID)

	// In bulk: some exist, some are in the batch twice.
	var bulk []api.Submission
	for _, version := range []string{"1.0.0", "1.0.1"} {
		for _, n := range []string{"1", "2", "2"} {
			bulk = append(bulk, api.Submission{
				Namespace: s.Namespace, Name: s.Name, Version: version, Context: json.RawMessage(`{"n": ` + n + `, "a/b": "x"}`),
			})
		}
	}
	answers := b.SubmitMany(t.Context(), bulk)
	require.Equal(t, first.UUID, faultOf(t, answers[0].Err, api.ErrConflict, api.CodeDuplicateIdentity).TaskUUID)
	made := map[bool]string{}
	for _, a := range answers[1:3] {
		if made[a.Created] = a.TaskUUID; !a.Created {
			faultOf(t, a.Err, api.ErrConflict, api.CodeDuplicateIdentity)
		}
	}
	require.Len(t, made, 2, "one is created and one refused")
	for _, a := range answers[3:] {
		require.NoError(t, a.Err)
	}
	require.Equal(t, api.SubmitAnswer{TaskUUID: second.UUID}, answers[3])
	require.Equal(t, answers[4].TaskUUID, answers[5].TaskUUID)
	require.NotEqual(t, answers[4].Created, answers[5].Created)
}
