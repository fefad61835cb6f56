package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// 2^128 and its predecessor differ only in digits that no float keeps.
const (
	twoTo128      = "340282366920938463463374607431768211456"
	twoTo128Less1 = "340282366920938463463374607431768211455"
)

// world is a database with one host and a template of two steps in a line.
type world struct {
	*Store
	pool  *pgxpool.Pool
	grant Grant
}

func newWorld(t *testing.T) *world {
	t.Helper()
	pool := pgtest.New(t)
	w := &world{Store: New(pool), pool: pool}
	ctx := t.Context()
	host, err := w.RegisterHost(ctx, HostInfo{Name: "host-a", Version: "1.0.0", Environment: "test", State: "normal"}, time.Hour)
	require.NoError(t, err)
	w.apply(t, line("linear", "pair", "1.0.0", "math.square", "math.add"))
	ids, err := w.HandlerIDs(ctx, []string{"math.square", "math.add"})
	require.NoError(t, err)
	w.grant = Grant{Host: host, Room: 100, Served: []int32{ids["math.square"], ids["math.add"]}}
	_, _, err = w.Heartbeat(ctx, host, "normal", []string{"math.square", "math.add"}, time.Hour, nil)
	require.NoError(t, err)
	return w
}

// line returns a plan whose steps s0, s1, … each depend on the one before.
func line(namespace, name, version string, handlers ...string) workflow.Plan {
	p := workflow.Plan{Namespace: namespace, Name: name, Version: version, Description: "a line"}
	for i, h := range handlers {
		s := workflow.Step{
			Name: fmt.Sprintf("s%d", i), Handler: h, Config: json.RawMessage(`{}`),
			Retry: workflow.Retry{Retryable: true, MaxAttempts: 2, Backoff: workflow.BackoffNone},
		}
		if i > 0 {
			s.Parents = []int32{int32(i - 1)}
		}
		if i < len(handlers)-1 {
			s.Children = []int32{int32(i + 1)}
		}
		p.Steps = append(p.Steps, s)
	}
	return p
}

func (w *world) apply(t *testing.T, plans ...workflow.Plan) {
	t.Helper()
	created, err := w.ApplyTemplate(t.Context(), fmt.Appendf(nil, "# %s@%s", plans[0].Name, plans[0].Version), plans)
	require.NoError(t, err)
	require.True(t, created)
}

func (w *world) submit(t *testing.T, namespace, name, version string, more func(*NewTask)) (vocab.UUID, []Lease) {
	t.Helper()
	plan, err := w.FindPlan(t.Context(), namespace, name, version, "")
	require.NoError(t, err)
	task := NewTask{
		UUID: vocab.TaskID(vocab.UUID(uuid.Must(uuid.NewV7()))), Plan: plan.ID,
		Context: json.RawMessage(`{"n": ` + twoTo128 + `}`), Identity: []byte{0xab, 0xcd},
	}
	if more != nil {
		more(&task)
	}
	created, err := w.CreateTasks(t.Context(), w.grant, []NewTask{task}, "")
	require.NoError(t, err)
	return created[0].UUID, created[0].Leases
}

func (w *world) pair(t *testing.T) (vocab.UUID, []Lease) {
	t.Helper()
	return w.submit(t, "linear", "pair", "1.0.0", nil)
}

func (w *world) settle(t *testing.T, l Lease, outcome vocab.Outcome, result, failure string) []Lease {
	t.Helper()
	s := Settlement{StepKey: l.StepKey, Lease: l.ID, Outcome: outcome, Generation: 7}
	if outcome == vocab.OutcomeSuccess {
		s.Result, s.Metadata = json.RawMessage(result), json.RawMessage(`{"m": `+twoTo128Less1+`}`)
	} else {
		s.Error = json.RawMessage(failure)
	}
	out, err := w.Settle(t.Context(), w.grant, Policy{RetryAfterCap: time.Minute, ClaimFactor: 3}, []Settlement{s})
	require.NoError(t, err)
	require.Equal(t, []Verdict{Recorded}, out.Verdicts)
	return out.Leases
}

func TestReadTaskShowsWhatWasSubmitted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, leases := w.submit(t, "linear", "pair", "1.0.0", func(n *NewTask) {
		n.Priority = new(int32(3))
		n.Attributes = json.RawMessage(`{"tags": ["a", "b'; drop table x; --"], "initiator": "ann", "source_system": "shop", "reason": "wanted"}`)
	})
	require.Len(t, leases, 1)

	task, err := w.ReadTask(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, id.String(), task.UUID)
	require.Equal(t, []string{"linear", "pair", "1.0.0"}, []string{task.Namespace, task.Name, task.Version})
	require.Equal(t, vocab.TaskInProgress, task.State)
	require.Equal(t, 3, task.Priority)
	require.Equal(t, readmodel.Progress{Total: 2, InProgress: 1, Pending: 1}, task.Progress)
	require.Equal(t, []string{"a", "b'; drop table x; --"}, task.Tags)
	require.Equal(t, []string{"ann", "shop", "wanted"}, []string{task.Initiator, task.SourceSystem, task.Reason})
	require.Equal(t, "abcd", task.IdentityHash)
	require.Equal(t, `{"n": `+twoTo128+`}`, string(task.Context))
	require.Equal(t, time.UTC, task.CreatedAt.Location())
	require.NotNil(t, task.StartedAt)
	require.Nil(t, task.CompletedAt)
	require.Nil(t, task.Error)
}

func TestReadTaskSurvivesAttributesOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, _ := w.submit(t, "linear", "pair", "1.0.0", func(n *NewTask) {
		n.Attributes = json.RawMessage(`{"tags": "not a list", "initiator": {"id": 1}, "reason": "kept"}`)
	})
	task, err := w.ReadTask(t.Context(), id)
	require.NoError(t, err)
	require.Empty(t, task.Tags)
	require.Empty(t, task.Initiator)
	require.Equal(t, "kept", task.Reason)
}

func TestReadStepsKeepsEveryDigit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, leases := w.pair(t)
	leases = w.settle(t, leases[0], vocab.OutcomeSuccess, `{"value": `+twoTo128+`, "tiny": 1.10}`, "")
	require.Len(t, leases, 1)

	steps, err := w.ReadSteps(t.Context(), id, -1, 10)
	require.NoError(t, err)
	require.Len(t, steps, 2)
	first, second := steps[0], steps[1]
	require.Equal(t, `{"tiny": 1.10, "value": `+twoTo128+`}`, string(first.Result))
	require.Equal(t, `{"m": `+twoTo128Less1+`}`, string(first.Metadata))
	require.Equal(t, vocab.StepID(id, 0).String(), first.UUID)
	require.Equal(t, []string{"s0", "math.square"}, []string{first.Name, first.Handler})
	require.Equal(t, vocab.StepComplete, first.State)
	require.Equal(t, []int{1, 1, 2}, []int{first.Attempts, first.Claims, first.MaxAttempts})
	require.NotNil(t, first.StartedAt)
	require.NotNil(t, first.FinishedAt)
	require.False(t, first.FinishedAt.Before(*first.StartedAt))
	require.Nil(t, first.Lease)

	require.Equal(t, []string{"s0"}, second.Parents)
	require.Equal(t, vocab.StepInProgress, second.State)
	require.Nil(t, second.Result)
	require.Nil(t, second.FinishedAt)
	require.Equal(t, "host-a", second.Lease.Holder)
	require.WithinDuration(t, time.Now().Add(time.Hour), *second.Lease.ExpiresAt, time.Minute)

	w.settle(t, leases[0], vocab.OutcomeSuccess, twoTo128Less1, "")
	task, err := w.ReadTask(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, vocab.TaskComplete, task.State)
	require.Equal(t, "all steps are complete", task.StateReason)
	require.InDelta(t, 100, task.Progress.Percentage, 0)
	steps, err = w.ReadSteps(t.Context(), id, 0, 10)
	require.NoError(t, err)
	require.Equal(t, twoTo128Less1, string(steps[0].Result))
}

func TestReadFailedTaskNamesTheStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, leases := w.pair(t)
	w.settle(t, leases[0], vocab.OutcomePermanent, "", `{"type": "PermanentError", "code": "OUT_OF_STOCK", "message": "no \"9'x\" left"}`)

	task, err := w.ReadTask(t.Context(), id)
	require.NoError(t, err)
	failure := readmodel.StepError{Type: vocab.PermanentError, Code: "OUT_OF_STOCK", Message: `no "9'x" left`}
	require.Equal(t, vocab.TaskError, task.State)
	require.Equal(t, &readmodel.TaskError{StepUUID: vocab.StepID(id, 0).String(), Step: "s0", Attempts: 1, StepError: failure}, task.Error)
	require.Equal(t, `step s0 failed: no "9'x" left`, task.StateReason)

	steps, err := w.ReadSteps(t.Context(), id, -1, 1)
	require.NoError(t, err)
	require.Equal(t, &failure, steps[0].Error)
	require.NotNil(t, steps[0].FinishedAt)

	snap, err := w.Snapshot(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, task.Progress, snap.Progress)
	require.Equal(t, task.Error, snap.Error)
	require.Equal(t, task.StateReason, snap.StateReason)
	require.True(t, snap.Settled())
}

func TestReadRetryingStepShowsWhenItIsDue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, leases := w.pair(t)
	s := Settlement{
		StepKey: leases[0].StepKey, Lease: leases[0].ID, Outcome: vocab.OutcomeRetryable, RetryAfter: time.Minute,
		Error: json.RawMessage(`{"type": "RetryableError", "message": "busy"}`),
	}
	_, err := w.Settle(t.Context(), w.grant, Policy{RetryAfterCap: time.Hour, ClaimFactor: 3}, []Settlement{s})
	require.NoError(t, err)

	steps, err := w.ReadSteps(t.Context(), id, -1, 1)
	require.NoError(t, err)
	require.Equal(t, vocab.StepPending, steps[0].State)
	require.Equal(t, "busy", steps[0].Error.Message)
	require.WithinDuration(t, time.Now().Add(time.Minute), *steps[0].DueAt, 30*time.Second)
	require.Nil(t, steps[0].FinishedAt)
}

func TestCancelledTaskSaysWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, _ := w.pair(t)
	_, cancelled, err := w.CancelTask(t.Context(), id, Operator{Reason: "a mistake"}, w.grant.Host)
	require.NoError(t, err)
	require.True(t, cancelled)
	task, err := w.ReadTask(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, "cancelled: a mistake", task.StateReason)
	require.Equal(t, 2, task.Progress.Cancelled)
	snap, err := w.Snapshot(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, task.StateReason, snap.StateReason)
}

func TestHistoryBeginsWithWhatIsNotStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, leases := w.pair(t)
	leases = w.settle(t, leases[0], vocab.OutcomeSuccess, "1", "")
	w.settle(t, leases[0], vocab.OutcomeSuccess, "2", "")

	history, err := w.ReadHistory(t.Context(), id, -1, 100)
	require.NoError(t, err)
	var got []string
	for _, e := range history {
		got = append(got, fmt.Sprintf("%s:%s>%s", e.Step, e.From, e.To))
	}
	require.Equal(t, []string{
		":>pending", ":pending>in_progress",
		"s0:>pending", "s0:pending>in_progress", "s1:>pending",
		"s0:in_progress>complete", "s1:pending>in_progress",
		"s1:in_progress>complete", ":in_progress>complete",
	}, got)
	require.True(t, slices.IsSortedFunc(history, func(a, b readmodel.Transition) int { return cmp.Compare(a.SortKey, b.SortKey) }))
	require.Equal(t, vocab.StepID(id, 1).String(), history[4].StepUUID)
	require.Equal(t, int64(7), history[5].PluginGeneration, "the process that ended the attempt")
	require.Zero(t, history[8].PluginGeneration)
	steps, err := w.ReadSteps(t.Context(), id, -1, 10)
	require.NoError(t, err)
	require.Equal(t, int64(7), steps[0].PluginGeneration)
}

func TestHistoryKeysStayAsTheTaskGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, leases := w.pair(t)
	before, err := w.ReadHistory(t.Context(), id, -1, 100)
	require.NoError(t, err)
	w.settle(t, leases[0], vocab.OutcomeSuccess, "1", "")
	after, err := w.ReadHistory(t.Context(), id, -1, 100)
	require.NoError(t, err)
	require.Equal(t, before, after[:len(before)])
	rest, err := w.ReadHistory(t.Context(), id, before[len(before)-1].SortKey, 100)
	require.NoError(t, err)
	require.Equal(t, after[len(before):], rest)
}

// pages reads a list to the end in pages of the given size.
func pages[T any, C any](t require.TestingT, size int, from C, read func(after C) ([]T, error), key func(T) C) []T {
	var all []T
	for {
		page, err := read(from)
		require.NoError(t, err)
		all = append(all, page...)
		if len(page) < size {
			return all
		}
		from = key(page[len(page)-1])
	}
}

func TestPagesHaveNoGapsAndNoRepeats(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(t, line("linear", "other", "1.0.0", "math.square"))
	handlers := slices.Repeat([]string{"math.square"}, 25)
	w.apply(t, line("linear", "long", "1.0.0", handlers...))
	var newest []string
	for i := range 23 {
		name := []string{"pair", "other"}[i%2]
		id, leases := w.submit(t, "linear", name, "1.0.0", nil)
		if i%3 == 0 && name == "other" {
			w.settle(t, leases[0], vocab.OutcomeSuccess, "1", "")
		}
		newest = append(newest, id.String())
	}
	long, leases := w.submit(t, "linear", "long", "1.0.0", nil)
	newest = append(newest, long.String())
	for range 10 {
		leases = w.settle(t, leases[0], vocab.OutcomeSuccess, "1", "")
	}
	slices.Sort(newest)
	slices.Reverse(newest)
	ctx := t.Context()
	all, err := w.ListTasks(ctx, TaskFilter{Limit: 100})
	require.NoError(t, err)
	allSteps, err := w.ReadSteps(ctx, long, -1, 1000)
	require.NoError(t, err)
	require.Len(t, allSteps, 25)
	allHistory, err := w.ReadHistory(ctx, long, -1, 1000)
	require.NoError(t, err)
	require.Len(t, allHistory, 2+25+1+2*10)
	require.Equal(t, newest, uuids(all))

	rapid.Check(t, func(r *rapid.T) {
		size := rapid.IntRange(1, 30).Draw(r, "size")
		require.Equal(r, allSteps, pages(r, size, -1, func(after int64) ([]readmodel.Step, error) {
			return w.ReadSteps(ctx, long, after, size)
		}, func(s readmodel.Step) int64 { return int64(s.Number) }))
		require.Equal(r, allHistory, pages(r, size, -1, func(after int64) ([]readmodel.Transition, error) {
			return w.ReadHistory(ctx, long, after, size)
		}, func(e readmodel.Transition) int64 { return e.SortKey }))

		f := TaskFilter{
			States: rapid.SliceOfNDistinct(rapid.SampledFrom(vocab.TaskStates), 0, 3, rapid.ID[vocab.TaskState]).Draw(r, "states"),
			Name:   rapid.SampledFrom([]string{"", "pair", "other"}).Draw(r, "name"),
			Limit:  size,
		}
		want := slices.DeleteFunc(slices.Clone(all), func(task readmodel.Task) bool {
			return f.Name != "" && task.Name != f.Name || len(f.States) > 0 && !slices.Contains(f.States, task.State)
		})
		got := pages(r, size, vocab.UUID{}, func(before vocab.UUID) ([]readmodel.Task, error) {
			f.Before = before
			return w.ListTasks(ctx, f)
		}, func(task readmodel.Task) vocab.UUID {
			id, err := vocab.ParseUUID(task.UUID)
			require.NoError(r, err)
			return id
		})
		require.Equal(r, uuids(want), uuids(got))
	})
}

// Pages of tasks by tag are those of all tasks without the ones that do not match,
// whichever partitions they are in and however common the tag is.
func TestListsByTag(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(t, line("linear", "other", "1.0.0", "math.square"))
	ctx := t.Context()
	tags := []string{"prod", "a,b", `"q"`, "näme", ""}
	for i := range 40 {
		var attributes string
		switch i % 5 {
		case 0: // no attributes at all
		case 1:
			attributes = `{"initiator": "prod"}`
		case 2:
			attributes = `{"tags": []}`
		case 3:
			attributes = `{"tags": ["prod", "a,b", "näme", ""]}`
		case 4:
			attributes = `{"tags": ["prod", "\"q\""]}`
		}
		w.submit(t, "linear", []string{"pair", "other"}[i%2], "1.0.0", func(n *NewTask) {
			if attributes != "" {
				n.Attributes = json.RawMessage(attributes)
			}
		})
	}
	// Some from days with their own partitions, some in the default one.
	for day, rows := range []int{30, 2500, 30} {
		_, err := w.pool.Exec(ctx, `select tasker_ensure_partitions(clock_timestamp() - make_interval(days => $1), 1)`, 2+2*day)
		require.NoError(t, err)
		for _, hours := range []int{0, 24} { // the day before has no partition
			_, err = w.pool.Exec(ctx, `
insert into tasker_tasks (task_uuid, plan_id, namespace_id, open_sinks, total_steps, state, created_at, completed_at, context, identity_hash, attributes)
select (left(tasker_uuid_floor(m.at)::text, 13) || '-7' || lpad(to_hex(n % 4096), 3, '0') || '-8' || lpad(to_hex(n % 4096), 3, '0') || '-' || lpad(to_hex(n), 7, '0') || '00000')::uuid,
       t.plan_id, t.namespace_id, 0, 2, 'complete', m.at, m.at, '{}', '\x00',
       case when n % 7 = 0 then jsonb_build_object('tags', jsonb_build_array('prod', case when n % 21 = 0 then '"q"' else 'x' end)) end
  from generate_series(1, $2::integer) n
 cross join lateral (select clock_timestamp() - make_interval(days => $1, hours => $3) as at) m
 cross join (select t.plan_id, t.namespace_id from tasker_tasks t limit 1) t`, 2+2*day, rows, hours)
			require.NoError(t, err)
		}
	}
	all, err := w.ListTasks(ctx, TaskFilter{Limit: 10000})
	require.NoError(t, err)
	require.Len(t, all, 40+2*(30+2500+30))
	rapid.Check(t, func(r *rapid.T) {
		f := TaskFilter{
			Tags:   rapid.SliceOfNDistinct(rapid.SampledFrom(tags), 1, 3, rapid.ID[string]).Draw(r, "tags"),
			States: rapid.SliceOfNDistinct(rapid.SampledFrom(vocab.TaskStates), 0, 3, rapid.ID[vocab.TaskState]).Draw(r, "states"),
			Name:   rapid.SampledFrom([]string{"", "pair", "other", "unknown"}).Draw(r, "name"),
		}
		f.Namespace = rapid.SampledFrom([]string{"", "linear", "unknown"}).Draw(r, "namespace")
		f.Limit = rapid.SampledFrom([]int{3, 50, 500}).Draw(r, "size")
		want := slices.DeleteFunc(slices.Clone(all), func(task readmodel.Task) bool {
			return f.Name != "" && task.Name != f.Name || f.Namespace != "" && task.Namespace != f.Namespace ||
				len(f.States) > 0 && !slices.Contains(f.States, task.State) ||
				slices.ContainsFunc(f.Tags, func(tag string) bool { return !slices.Contains(task.Tags, tag) })
		})
		want = want[:min(len(want), 4*f.Limit)] // four pages are enough
		var got []readmodel.Task
		for range 4 {
			page, err := w.ListTasks(ctx, f)
			require.NoError(r, err)
			require.LessOrEqual(r, len(page), f.Limit)
			if got = append(got, page...); len(page) < f.Limit {
				break
			}
			f.Before, err = vocab.ParseUUID(page[len(page)-1].UUID)
			require.NoError(r, err)
		}
		require.Equal(r, uuids(want), uuids(got))
	})
}

func uuids(tasks []readmodel.Task) []string {
	ids := make([]string, len(tasks))
	for i := range tasks {
		ids[i] = tasks[i].UUID
	}
	return ids
}

func TestFiltersAreDataNotSQL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pair(t)
	for _, hostile := range []string{`'; drop table tasker_tasks; --`, `" or 1=1`, `%`, `linear\`, `pa_r`, `$1`, "näme\u2603"} {
		tasks, err := w.ListTasks(t.Context(), TaskFilter{Namespace: hostile, Limit: 10})
		require.NoError(t, err)
		require.Empty(t, tasks)
		tasks, err = w.ListTasks(t.Context(), TaskFilter{Name: hostile, Limit: 10})
		require.NoError(t, err)
		require.Empty(t, tasks)
		templates, err := w.ListTemplates(t.Context(), TemplateFilter{Namespace: hostile, Name: hostile, AfterNamespace: hostile, AfterVersion: hostile, Limit: 10})
		require.NoError(t, err)
		require.Empty(t, templates)
		_, err = w.ReadTemplate(t.Context(), hostile, hostile, hostile)
		require.ErrorIs(t, err, ErrNotFound)
	}
	tasks, err := w.ListTasks(t.Context(), TaskFilter{Namespace: "linear", Name: "pair", States: []vocab.TaskState{vocab.TaskInProgress}, Limit: 10})
	require.NoError(t, err)
	require.Len(t, tasks, 1)
	require.Nil(t, tasks[0].Context)
}

func TestWhatDoesNotExistIsNotFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	id := vocab.TaskID(vocab.UUID(uuid.Must(uuid.NewV7())))
	for name, read := range map[string]func() error{
		"task":     func() error { _, err := w.ReadTask(ctx, id); return err },
		"snapshot": func() error { _, err := w.Snapshot(ctx, id); return err },
		"steps":    func() error { _, err := w.ReadSteps(ctx, id, -1, 10); return err },
		"history":  func() error { _, err := w.ReadHistory(ctx, id, -1, 10); return err },
		"template": func() error { _, err := w.ReadTemplate(ctx, "linear", "pair", "9.9.9"); return err },
		"latest":   func() error { _, err := w.LatestVersion(ctx, "linear", "nothing"); return err },
	} {
		require.ErrorIs(t, read(), ErrNotFound, name)
	}
}

// Lists scan an index from its newest end and stop early: lists of everything the primary
// key, lists of active tasks the index that contains only those.
func TestListsDoNotScanHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	active := []string{"in_progress"}
	require.Contains(t, w.explain(t, sqlListTasks, []string{}), "Index Scan Backward using tasker_tasks_default_pkey")
	require.Contains(t, w.explain(t, sqlListActiveTasks, active), "Index Scan Backward using tasker_tasks_default_task_uuid_idx")
}

// explain returns the plan for tables too large to be scanned.
func (w *world) explain(t *testing.T, sql string, states []string) string {
	t.Helper()
	tx, err := w.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(context.WithoutCancel(t.Context()))) }()
	_, err = tx.Exec(t.Context(), "set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off")
	require.NoError(t, err)
	newest := vocab.UUID{0xff}
	rows, err := tx.Query(t.Context(), "explain (costs off) "+sql, newest, "", "", states, 10)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return strings.Join(lines, "\n")
}
