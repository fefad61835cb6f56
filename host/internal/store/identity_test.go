package store_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// uniqueTask describes a task whose identity may exist only once.
func uniqueTask(p *store.Plan, identity string, policy workflow.IdentityPolicy) store.NewTask {
	task := newTask(p)
	task.Identity, task.Unique = []byte(identity), policy
	return task
}

// submit creates a batch and sorts it; the answers are in the sorted order.
func (b *bed) submit(t testing.TB, g store.Grant, batch ...store.NewTask) []store.Created {
	t.Helper()
	created, err := b.store.CreateTasks(t.Context(), g, batch, "")
	require.NoError(t, err)
	return created
}

func TestIdentityMakesOneTask(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, fan(1)...), b.grant(b.host(t), 0)
	allowed := b.submit(t, g, newTask(p), newTask(p), uniqueTask(p, "identity", workflow.IdentityAllow))
	for _, c := range allowed {
		require.Equal(t, store.CreateDone, c.Outcome)
	}
	require.Zero(t, one[int](t, b, "select count(*) from tasker_task_identities"), "allowed duplicates cost nothing")

	first := uniqueTask(p, "a", workflow.IdentityReject)
	twin, other := uniqueTask(p, "a", workflow.IdentityReject), uniqueTask(p, "b", workflow.IdentityReject)
	require.Equal(t, []store.Created{
		{Outcome: store.CreateDone, UUID: first.UUID}, {Outcome: store.CreateExists, UUID: first.UUID}, {Outcome: store.CreateDone, UUID: other.UUID},
	}, b.submit(t, g, first, twin, other), "in one batch")
	require.Equal(t, []store.Created{{Outcome: store.CreateExists, UUID: first.UUID}}, b.submit(t, g, uniqueTask(p, "a", workflow.IdentityReject)))
	require.Equal(t, []store.Created{{Outcome: store.CreateDuplicate, UUID: first.UUID}}, b.submit(t, g, uniqueTask(p, "a", workflow.IdentityReturnExisting)))

	_, cancelled, err := b.store.CancelTask(t.Context(), first.UUID, store.Operator{Reason: "over"}, g.Host)
	require.NoError(t, err)
	require.True(t, cancelled)
	require.Equal(t, []store.Created{{Outcome: store.CreateExists, UUID: first.UUID}}, b.submit(t, g, uniqueTask(p, "a", workflow.IdentityReject)), "a task that was cancelled exists")

	// The same call again, as after a lost reply.
	require.Equal(t, []store.Created{{Outcome: store.CreateDuplicate, UUID: other.UUID}}, b.submit(t, g, other))
	require.Equal(t, 5, one[int](t, b, "select count(*) from tasker_tasks"))
	b.requireSound(t)
}

// Keys and identities in one batch: a key never refers to a task that was not created,
// and a repeated key is answered before the identity is checked.
func TestIdentityAndKey(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, fan(1)...), b.grant(b.host(t), 0)
	keyed := func(identity, key string, policy workflow.IdentityPolicy) store.NewTask {
		task := uniqueTask(p, identity, policy)
		task.Key, task.KeyHash = key, []byte(identity)
		return task
	}
	keys := func() []string {
		rows, err := b.pool.Query(t.Context(), "select idempotency_key || ' ' || task_uuid from tasker_idempotency_keys order by 1")
		require.NoError(t, err)
		defer rows.Close()
		var all []string
		for rows.Next() {
			var s string
			require.NoError(t, rows.Scan(&s))
			all = append(all, s)
		}
		require.NoError(t, rows.Err())
		return all
	}
	first := keyed("a", "k1", workflow.IdentityReject)
	again := store.Created{Outcome: store.CreateDuplicate, UUID: first.UUID}
	exists := store.Created{Outcome: store.CreateExists, UUID: first.UUID}
	require.Equal(t, store.CreateDone, b.submit(t, g, first)[0].Outcome)
	require.Equal(t, []store.Created{again}, b.submit(t, g, keyed("a", "k1", workflow.IdentityReject)), "the key was used for the same")
	require.Equal(t, []store.Created{exists, exists}, b.submit(t, g, keyed("a", "k2", workflow.IdentityReject), keyed("a", "k2", workflow.IdentityReject)),
		"the second of the batch was answered with the first, which is not made")
	require.Equal(t, []string{"k1 " + first.UUID.String()}, keys(), "the key of a refused request is free")
	require.Equal(t, []store.Created{again, again},
		b.submit(t, g, keyed("a", "k3", workflow.IdentityReturnExisting), keyed("a", "k3", workflow.IdentityReturnExisting)))
	require.Equal(t, []string{"k1 " + first.UUID.String(), "k3 " + first.UUID.String()}, keys())
	require.Equal(t, []store.Created{again}, b.submit(t, g, keyed("a", "k3", workflow.IdentityReturnExisting)))
	require.Equal(t, 1, one[int](t, b, "select count(*) from tasker_tasks"))
	b.requireSound(t)
}

// Submitters with overlapping batches, each in a different order: there is one task per
// identity, nobody blocks another for ever, and all get the same answers.
func TestIdentitiesSixteenSubmitters(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, chain(2)...), b.grant(b.host(t), 4)
	const rounds, identities = 12, 5
	race := func(name string) {
		var mu sync.Mutex
		made, told := map[string]int{}, map[string]map[vocab.UUID]bool{}
		var submitters []func() error
		for n := range 16 {
			policy := workflow.IdentityReject
			if n%2 == 0 {
				policy = workflow.IdentityReturnExisting
			}
			var batch []store.NewTask
			for _, i := range rand.Perm(identities) {
				batch = append(batch, uniqueTask(p, fmt.Sprintf("%s %d", name, i), policy))
			}
			submitters = append(submitters, func() error {
				created, err := b.store.CreateTasks(t.Context(), g, batch, "")
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				for i, c := range created {
					identity := string(batch[i].Identity)
					if c.Outcome == store.CreateDone {
						made[identity]++
					}
					if told[identity] == nil {
						told[identity] = map[vocab.UUID]bool{}
					}
					told[identity][c.UUID] = true
				}
				return nil
			})
		}
		require.NoError(t, together(submitters...))
		require.Len(t, made, identities)
		for identity, n := range made {
			require.Equal(t, 1, n, identity)
			require.Len(t, told[identity], 1, identity)
		}
	}
	for round := range rounds {
		race(fmt.Sprint("round ", round))
	}
	require.Equal(t, rounds*identities, one[int](t, b, "select count(*) from tasker_tasks"))
	b.requireSound(t)

	// The identities of tasks removed by retention are free again, for one task each.
	b.exec(t, "update tasker_task_identities set task_uuid = tasker_uuid_floor(clock_timestamp() - interval '40 days')")
	race("round 0")
	require.Equal(t, (rounds+1)*identities, one[int](t, b, "select count(*) from tasker_tasks"))
	require.Equal(t, identities, one[int](t, b, "select count(*) from tasker_task_identities i join tasker_tasks t using (task_uuid)"))
}

// Identities are removed with their tasks.
func TestRetentionOfIdentities(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p, g := b.mustPlan(t, fan(1)...), b.grant(b.host(t), 0)
	kept := uniqueTask(p, "kept", workflow.IdentityReject)
	b.submit(t, g, kept)
	b.past(t, p, 40*day, 3)
	b.exec(t, `insert into tasker_task_identities (identity_hash, namespace_id, task_uuid)
	           select sha256(task_uuid::text::bytea), namespace_id, task_uuid from tasker_tasks where task_uuid <> $1`, kept.UUID)
	keep := store.Retention{Tasks: 30 * day, Keys: time.Hour, DeadLetters: time.Hour, Records: time.Hour}
	n, err := b.store.PruneRecords(t.Context(), keep)
	require.NoError(t, err)
	require.Zero(t, n, "their tasks are there")
	_, _, err = retain(t.Context(), b.store, keep)
	require.NoError(t, err)
	require.Equal(t, 1, one[int](t, b, "select count(*) from tasker_tasks"))
	n, err = b.store.PruneRecords(t.Context(), keep)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.True(t, slices.Equal(kept.UUID[:], one[[]byte](t, b, "select uuid_send(task_uuid) from tasker_task_identities")))
}
