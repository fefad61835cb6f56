package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// A worker that reads the queue itself takes 20,000 messages with a priority; their
// entries stay. The sweep removes them, and no others, in bounded turns, and a claim is
// as fast as before.
func TestLanesOfMessagesTakenByOthers(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(1)...)
	g := b.grant(b.host(t), 0)
	urgent := func(n int) {
		batch := make([]store.NewTask, n)
		for i := range batch {
			batch[i] = newTask(p)
			batch[i].Priority = new(int32(4))
		}
		_, err := b.store.CreateTasks(t.Context(), g, batch, "")
		require.NoError(t, err)
	}
	const taken = 20_000
	b.exec(t, `insert into tasker_priority_messages (queue_name, priority, msg_id)
	           select $1, 4, -n from generate_series(1, $2::integer) n`, queue, taken) // as their worker leaves them
	urgent(3)
	b.exec(t, "analyze tasker_priority_messages")
	var removed, turns int
	for lane := (store.Lane{}); turns == 0 || lane != (store.Lane{}); turns++ {
		n, next, err := b.store.SweepLanes(t.Context(), lane)
		require.NoError(t, err)
		require.LessOrEqual(t, n, 5000)
		removed, lane = removed+n, next
	}
	require.Equal(t, taken, removed)
	require.Equal(t, 3, one[int](t, b, "select count(*) from tasker_priority_messages"))
	require.Equal(t, 6, turns) // four full ones, one with the rest, one that finds the end
	began := time.Now()
	require.Len(t, b.claim(t, b.grant(g.Host, 10)), 3)
	t.Logf("claim after the sweep: %v", time.Since(began))
	require.Zero(t, one[int](t, b, "select count(*) from tasker_priority_messages"))
}

// TestPrioritiesThatAreNone: others may send any header; a step is claimed whatever its
// priority says, by either statement, and does not hold up those behind it.
func TestPrioritiesThatAreNone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.mustPlan(t, fan(1)...)
	g := b.grant(b.host(t), 0)
	for _, priority := range []string{`100000`, `-100000`, `1e12`, `-1e12`, `1.5`, `"4"`, `"high"`, `true`, `null`, `[4]`} {
		for _, lanes := range []bool{false, true} {
			for _, room := range []int{1, 5} {
				b.exec(t, "delete from tasker_priority_messages")
				if lanes {
					b.exec(t, `insert into tasker_priority_messages (queue_name, priority, msg_id) values ($1, 4, -1)`, queue)
				}
				b.create(t, g, p)
				b.exec(t, `update pgmq.q_`+queue+` set headers = headers || jsonb_build_object('priority', $1::jsonb)`, priority)
				require.Len(t, b.claim(t, b.grant(g.Host, room)), 1, "priority %s, lanes %t, room for %d", priority, lanes, room)
			}
		}
	}
}
