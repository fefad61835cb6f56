package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Conformance with the reference as far as SQL is concerned: its tables of transitions,
// its answers to claims for finalization, and its order of claiming by priority.
// Deliberate differences are mentioned where they are tested.

// Every pair of states of a task, and of a step: Go, the SQL function and the guard that
// stops even psql agree on which transitions are legal.
//
// Differences: pending → in_progress of a step needs no message (a step leased directly);
// in_progress → enqueued exists (a lease given back); nothing leaves complete, cancelled
// and resolved_manually, whereas the reference allows resolve_manually.
func TestEdges(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	task, _ := b.create(t, b.grant(b.host(t), 0), b.mustPlan(t, fan(1)...))
	legal := 0
	for _, from := range vocab.StepStates {
		for _, to := range vocab.StepStates {
			if from == to {
				continue
			}
			b.tryEdge(t, "step", task, string(from), string(to), vocab.CanStep(from, to))
			if vocab.CanStep(from, to) {
				legal++
			}
		}
	}
	require.Equal(t, 17, legal)
	for _, from := range vocab.TaskStates {
		for _, to := range vocab.TaskStates {
			if from != to {
				b.tryEdge(t, "task", task, string(from), string(to), vocab.CanTask(from, to))
			}
		}
	}
}

// tryEdge updates a row from one state to another, like psql.
func (b *bed) tryEdge(t *testing.T, kind string, task vocab.UUID, from, to string, want bool) {
	t.Helper()
	table, set := "tasker_workflow_steps", "state = %s"
	if kind == "task" {
		table = "tasker_tasks"
		set = "state = %[1]s, completed_at = case when %[1]s in ('pending', 'in_progress') then null else clock_timestamp() end"
	}
	name := fmt.Sprintf("%s %s → %s", kind, from, to)
	require.Equal(t, want, one[bool](t, b, fmt.Sprintf("select tasker_legal_%[1]s_edge($1::text::tasker_%[1]s_state, $2::text::tasker_%[1]s_state)", kind), from, to), name)

	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(t.Context())) }()
	// How the row got to the first state does not matter here: the guard is disabled.
	_, err = tx.Exec(t.Context(), "alter table "+table+" disable trigger all")
	require.NoError(t, err)
	value := fmt.Sprintf("$2::text::tasker_%s_state", kind)
	_, err = tx.Exec(t.Context(), "update "+table+" set "+fmt.Sprintf(set, value)+" where task_uuid = $1", task, from)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "alter table "+table+" enable trigger all")
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "update "+table+" set "+fmt.Sprintf(set, value)+" where task_uuid = $1", task, to)
	if want {
		require.NoError(t, err, name)
		return
	}
	pg, ok := err.(*pgconn.PgError)
	require.True(t, ok, name)
	require.Equal(t, pgerrcode.CheckViolation, pg.Code, name)
	require.Contains(t, pg.Message, fmt.Sprintf("from %s to %s", from, to))
}

// claimAs claims a task for finalization and returns everything that the function
// returns.
func (b *bed) claimAs(t testing.TB, pool *pgxpool.Pool, task vocab.UUID, processor string, seconds int) (c finalizer.Claim, attempt vocab.UUID) {
	t.Helper()
	var by *string
	var lease *vocab.UUID
	err := pool.QueryRow(t.Context(), `
select claimed, already_claimed_by, task_state, message, finalization_attempt_uuid, lease_id
  from claim_task_for_finalization($1, $2, $3)`, task, processor, seconds).Scan(&c.Claimed, &by, &c.State, &c.Message, &attempt, &lease)
	require.NoError(t, err)
	if by != nil {
		c.ClaimedBy = *by
	}
	if lease != nil {
		c.Lease = *lease
	}
	return c, attempt
}

// The reference's table of outcomes of a claim. The same: the function's name,
// parameters, columns and messages, and that every attempt is recorded. Different: an
// unknown task is "Task not found" (the reference never got there); the same processor is
// refused (there is no "Claim extended"); tasks that ended in a state other than complete
// say so; there is no "Failed to claim - race condition".
func TestClaimOfAFinalization(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, fan(2)...), b.grant(b.host(t), 2)
	unknown := taskUUID()
	fresh, _ := b.create(t, g, p)
	half, leases := b.create(t, g, p)
	b.settle(t, g, vocab.OutcomeSuccess, leases[0])
	failed, leases := b.create(t, g, p)
	b.settle(t, g, vocab.OutcomePermanent, leases...)
	complete, leases := b.create(t, g, p)
	b.settle(t, g, vocab.OutcomeSuccess, leases...)
	cancelled, _ := b.create(t, g, p)
	_, _, err := b.store.CancelTask(t.Context(), cancelled, store.Operator{Reason: "test"}, 0)
	require.NoError(t, err)

	for _, c := range []struct {
		name           string
		task           vocab.UUID
		processor      string
		claimed        bool
		by             string
		state, message string
	}{
		{"not found", unknown, "p1", false, "", "not_found", "Task not found"},
		{"complete", complete, "p1", false, "", "complete", "Task already complete"},
		{"failed", failed, "p1", false, "", "error", "Task already settled"},
		{"cancelled", cancelled, "p1", false, "", "cancelled", "Task already settled"},
		{"no step has ended", fresh, "p1", false, "", "processing", "Task has no completed or failed steps"},
		{"free", half, "p1", true, "", "processing", "Successfully claimed for finalization"},
		{"another holds it", half, "p2", false, "p1", "processing", "Task already claimed for finalization"},
		{"the same processor again", half, "p1", false, "p1", "processing", "Task already claimed for finalization"},
	} {
		got, attempt := b.claimAs(t, b.pool, c.task, c.processor, 30)
		require.Equal(t, c.claimed, got.Lease != none, c.name)
		got.Lease = none
		require.Equal(t, finalizer.Claim{Claimed: c.claimed, ClaimedBy: c.by, State: c.state, Message: c.message}, got, c.name)
		require.Equal(t, 1, one[int](t, b, `
select count(*) from tasker_finalization_attempts
 where finalization_attempt_uuid = $1 and task_uuid = $2 and processor_id = $3 and claimed = $4 and task_state = $5 and message = $6`,
			attempt, c.task, c.processor, c.claimed, c.state, c.message), c.name)
	}
	require.Equal(t, 1, one[int](t, b, "select finalize_claims from tasker_tasks where task_uuid = $1", half))

	for _, bad := range []string{"'p', 0", "'p', 3601", "'p', null", "'', 30", "null, 30"} {
		_, err := b.pool.Exec(t.Context(), "select claim_task_for_finalization($1, "+bad+")", half)
		require.ErrorContains(t, err, "claim of task", bad)
	}
}

// A claim ends at a point in time. In the reference, a session in another time zone could
// take it at once, or had to wait for half a day.
func TestClaimInAnotherTimeZone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, fan(2)...), b.grant(b.host(t), 2)
	for _, zones := range [][2]string{{"Pacific/Auckland", "America/Los_Angeles"}, {"America/Los_Angeles", "Pacific/Auckland"}} {
		task, leases := b.create(t, g, p)
		b.settle(t, g, vocab.OutcomeSuccess, leases[0])
		first, second := b.inZone(t, zones[0]), b.inZone(t, zones[1])
		got, _ := b.claimAs(t, first, task, "p1", 30)
		require.True(t, got.Claimed)
		got, _ = b.claimAs(t, second, task, "p2", 30)
		require.False(t, got.Claimed, zones)
		b.exec(t, "update tasker_tasks set finalize_until = clock_timestamp() - interval '1 ms' where task_uuid = $1", task)
		got, _ = b.claimAs(t, second, task, "p2", 30)
		require.True(t, got.Claimed, zones)
	}
}

func (b *bed) inZone(t *testing.T, zone string) *pgxpool.Pool {
	t.Helper()
	cfg := b.pool.Config()
	cfg.ConnConfig.RuntimeParams["TimeZone"] = zone
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// A claim belongs to its lease, not to the name of its processor.
func TestReleaseOfAClaim(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, fan(2)...), b.grant(b.host(t), 2)
	task, leases := b.create(t, g, p)
	b.settle(t, g, vocab.OutcomeSuccess, leases[0])
	release := func(processor string, lease any) bool {
		return one[bool](t, b, "select release_finalization_claim($1, $2, $3)", task, processor, lease)
	}
	first, _ := b.claimAs(t, b.pool, task, "p1", 1)
	b.exec(t, "update tasker_tasks set finalize_until = clock_timestamp() - interval '1 ms' where task_uuid = $1", task)
	second, _ := b.claimAs(t, b.pool, task, "p1", 30)
	require.True(t, second.Claimed)
	require.False(t, release("p1", first.Lease), "a claim that ran out")
	require.False(t, release("p2", second.Lease), "another processor's")
	require.False(t, release("p2", nil), "another processor's, as the reference asked")
	require.True(t, release("p1", second.Lease))
	require.False(t, release("p1", second.Lease), "twice")
	third, _ := b.claimAs(t, b.pool, task, "p1", 30)
	require.True(t, third.Claimed)
	require.True(t, one[bool](t, b, "select release_finalization_claim($1, $2)", task, "p1"), "as the reference asked")
}

// The reference's table of computed priorities, with their growth and limits.
func TestComputedPriority(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, c := range []struct {
		priority int
		age      float64
		want     float64
	}{
		{4, 0, 4},
		{4, 300, 5},
		{4, 600, 6},
		{4, 1e6, 6},
		{9, 0, 9},
		{9, 1e6, 11},
		{3, 0, 3},
		{3, 180, 4},
		{3, 540, 6},
		{3, 1e6, 6},
		{2, 0, 2},
		{2, 120, 3},
		{2, 480, 6},
		{2, 1e6, 6},
		{1, 0, 1},
		{1, 60, 2},
		{1, 300, 6},
		{1, 1e6, 6},
		{0, 0, 0},
		{0, 30, 1},
		{0, 180, 6},
		{0, 1e6, 6},
		{-5, 15, 0.5},
		{-5, 1e6, 6},
	} {
		require.InDelta(t, c.want, one[float64](t, b, "select tasker_computed_priority($1::integer, $2::float8)", c.priority, c.age), 1e-9, "%+v", c)
	}
}

// Urgent tasks overtake a backlog of a thousand; among equals, the older one comes first.
func TestUrgentTasksOvertakeABacklog(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, fan(1)...), b.grant(b.host(t), 0)
	create := func(n int, priority *int32) (ids []vocab.UUID) {
		batch := make([]store.NewTask, n)
		for i := range batch {
			batch[i] = newTask(p)
			batch[i].Priority = priority
		}
		created, err := b.store.CreateTasks(t.Context(), g, batch, "")
		require.NoError(t, err)
		for _, c := range created {
			ids = append(ids, c.UUID)
		}
		return ids
	}
	backlog := create(1000, nil)
	low, urgent := create(2, new(int32(1))), create(3, new(int32(4)))
	g.Room = 3
	require.ElementsMatch(t, urgent, tasksOf(b.claim(t, g)))
	g.Room = 2
	require.ElementsMatch(t, low, tasksOf(b.claim(t, g)))
	g.Room = 5
	require.ElementsMatch(t, backlog[:5], tasksOf(b.claim(t, g)))
}

// Age compensates for priority, so that nothing waits for ever: an ordinary task of four
// minutes (6) comes before a new urgent one (4).
func TestOldTasksAreNotOvertaken(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, fan(1)...), b.grant(b.host(t), 0)
	old := newTask(p)
	head := uint64(time.Now().Add(-4*time.Minute).UnixMilli()) << 16
	for i := range 6 {
		old.UUID[i] = byte(head >> (56 - 8*i))
	}
	urgent := newTask(p)
	urgent.Priority = new(int32(4))
	_, err := b.store.CreateTasks(t.Context(), g, []store.NewTask{urgent, old}, "")
	require.NoError(t, err)
	g.Room = 1
	require.Equal(t, []vocab.UUID{old.UUID}, tasksOf(b.claim(t, g)))
	require.Equal(t, []vocab.UUID{urgent.UUID}, tasksOf(b.claim(t, g)))
}

func tasksOf(leases []store.Lease) (ids []vocab.UUID) {
	for _, l := range leases {
		ids = append(ids, l.Task)
	}
	return slices.Compact(ids)
}
