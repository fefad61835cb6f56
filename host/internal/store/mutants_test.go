package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// A mutant is the engine with one guard removed. The machine or a scenario must notice
// each one: a guard whose loss goes unnoticed is not tested, or not needed.
//
// Guards whose removal has no effect, because there is another one behind them, are not
// in the table:
//   - settle's "state = 'in_progress'" for the task it finishes: a task that has
//     ended has no step in progress, so nothing is settled in it.
//   - "for update" of tasker_release_host_steps: tasker_release_steps looks at the
//     state again; what has been settled meanwhile gets a hint too many.
//   - "for update skip locked" of the claim's messages: the steps' state check
//     lets only one win; skipping is for speed.
//   - "nth = 1" of tasker_worker_successes: settle's update changes a row once; of
//     two outputs for a step it would be left to the plan which one counts.
type mutant struct {
	name, function string
	old, new       string
	hunt           func(t *testing.T, b *bed) (violation string)
}

const (
	settleSteps   = "tasker_settle_steps"
	settleOne     = "tasker_settle_success"
	settleFailure = "tasker_settle_failures"
	lockFailing   = "tasker_lock_failing"
	claimSteps    = "tasker_claim_steps"
	apply         = "tasker_apply_finalization"
	claimTask     = "claim_task_for_finalization"
	sweepLeases   = "tasker_sweep_worker_leases"
	complete      = "tasker_worker_successes"
	exchange      = "tasker_worker_exchange"
	settlePosted  = "tasker_settle_posted"
	createTasks   = "tasker_create_tasks"
	conclude      = "tasker_conclude_tasks"
	retrySteps    = "tasker_retry_steps"
	resolveStep   = "tasker_resolve_step"
	rouse         = "tasker_rouse"
	restFunction  = "tasker_rest"
)

var mutants = []mutant{
	{"settle without the lease", settleSteps, "and s.state = 'in_progress' and s.lease_id = g.lease_id", "and s.state = 'in_progress'", fenceHunt},
	{"settle without the state", settleSteps, "and s.state = 'in_progress' and s.lease_id = g.lease_id", "and s.lease_id = g.lease_id", machineHunt},
	{"count a child down once per batch", settleSteps, "remaining_parents = s.remaining_parents - o.settled,", "remaining_parents = s.remaining_parents - 1,", machineHunt},
	{"count down no child", settleSteps, "remaining_parents = s.remaining_parents - o.settled,", "remaining_parents = s.remaining_parents,", machineHunt},
	{"wake a child with its first parent", settleSteps, "when s.remaining_parents > o.settled or s.state <> 'pending'", "when s.state <> 'pending'", joinHunt},
	{"finish with the first sink", settleSteps, "state = case when t.open_sinks = k.settled and", "state = case when", machineHunt},
	{"ready children without the mark of doom", settleSteps, "doomed = s.doomed or o.doomed,", "doomed = s.doomed,", markHunt},
	{"no look after a doomed success", settleSteps, "where d.doomed)", "where false)", markHunt},
	{"ready children without a message", settleSteps, "if o_enqueued > 0 then", "if false then", machineHunt},
	{"more leases than room", settleSteps, "<= p_room\n           and (v_paused", "<= p_room + 1\n           and (v_paused", machineHunt},
	{"hand children to a dead host", settleSteps, "if p_room > 0 and not tasker_may_lease(p_host) then", "if false then", deadHunt},

	{"settle one without the lease", settleOne, "and s.state = 'in_progress' and s.lease_id = p_lease\n", "and s.state = 'in_progress'\n", fenceHunt},
	{"settle one without the state", settleOne, "and s.state = 'in_progress' and s.lease_id = p_lease\n", "and s.lease_id = p_lease\n", machineHunt},
	{"settle one and count down no child", settleOne, "remaining_parents = s.remaining_parents - 1,", "remaining_parents = s.remaining_parents,", machineHunt},
	{"settle one and wake a child with its first parent", settleOne, "when s.remaining_parents > 1 or s.state <> 'pending'", "when s.state <> 'pending'", joinHunt},
	{"settle one and finish with the first sink", settleOne, "state = case when t.open_sinks = 1 and", "state = case when", joinHunt},
	{"settle one without the mark of doom", settleOne, "doomed = s.doomed or v_old.doomed,", "doomed = s.doomed,", markHunt},
	{"settle one and look no more", settleOne, "if v_old.doomed then", "if false then", markHunt},
	{"settle one and send no message", settleOne, "if o_enqueued > 0 then", "if false then", machineHunt},
	{"settle one and give more leases than room", settleOne, "p_room := p_room - 1;", "", roomHunt},
	{"settle one and hand over what others serve", settleOne, "v_hand := v_kind.served;", "v_hand := true;", partHunt},
	{"hand over for longer than the timeout", settleOne, "least(p_lease_for, v_kind.timeout)", "p_lease_for", handedHunt},
	{"hand over in nobody's name", settleOne, "case when v_hand and p_worker is not null then jsonb_build_object('worker', p_worker) end", "null", handedHunt},

	{"failure without the lease", settleFailure, "when g.state <> 'in_progress' or g.has is distinct from g.lease_id then", "when g.state <> 'in_progress' then", machineHunt},
	{"failure without the state", settleFailure, "when g.state <> 'in_progress' or g.has", "when g.has", machineHunt},
	{"a retry without a message", settleFailure, "perform tasker_enqueue(v_fate.retry_task, v_fate.retry_step, v_fate.retry_due);", "", triesHunt},
	{"no end to retries", settleFailure, "or g.attempts + 1 >= g.max_attempts then 'bury'", "then 'bury'", triesHunt},
	{"retry what is not retryable", settleFailure, "or not g.retryable or", "or", capHunt},
	{"no attempt charged", settleFailure, "attempts = s.attempts + 1,", "", machineHunt},
	{"a longer wait than the policy's", settleFailure, "g.attempts + 1) * (1", "g.attempts + 2) * (1.5", dueHunt},
	{"failures that lock their own row first", lockFailing, "perform tasker_lock_movable(v_tasks, p_task, p_step);", "perform from tasker_workflow_steps s where s.task_uuid = any(p_task) and s.step_no = any(p_step) for update;", failOrderHunt},
	{"failures among others that lock their own row first", lockFailing, "perform tasker_lock_movable(v_tasks, p_task, p_step);", "", mixedOrderHunt},
	{"failures that lock a retry first", lockFailing, "perform tasker_lock_movable(v_tasks, p_task, p_step);", "", retriesHunt},
	{"failures that lock a retry last", lockFailing, "(v_tasks, p_task, p_step)", "(v_tasks)", crosswiseHunt},
	{"doomed tasks after those with a sink", settleSteps, "where p.children = '{}' or p.doomed", "where p.children = '{}'", sinksHunt},
	{"keep what is locked while more can move", "tasker_lock_movable", "raise exception 'what can move has become more' using errcode = 'TK001';", "", readyCancelHunt},
	{"failures that are judged without the locks", lockFailing, "where u.outcome <> 'success') u", "where false) u", retryRaceHunt},
	{"two failures of a step", settleFailure, "when g.nth > 1 and g.has = g.lease_id then 'already_recorded'", "", repeatedHunt},

	{"no mark of doom", "tasker_bury_steps", "perform tasker_lock_movable(v_tasks);", "exit;", machineHunt},
	{"release without a cap on claims", settleFailure, "case when g.claims >= p_claim_factor * g.max_attempts and not g.excused then 'exhaust' else 'release' end", "'release'", capHunt},
	{"an excuse that does not count", "tasker_release_steps", "claims = s.claims - g.excused::integer, ", "", excuseHunt},
	{"a worker's shutdown that counts", "tasker_worker_release", ", 'excused', true)", ")", excuseHunt},
	{"an excuse that comes too late", settleFailure, "and not g.excused then 'exhaust'", "then 'exhaust'", excuseHunt},
	{"release without a message", "tasker_release_steps", "perform tasker_enqueue(p_task, p_step, p_due);", "null;", machineHunt},

	{"conclude without the task's lock", conclude, "order by t.task_uuid for update of t", "order by t.task_uuid", doomedHunt},
	{"conclude while something moves", conclude, "where not s.moving", "", machineHunt},
	{"conclude what has ended", conclude, "filter (where l.state = 'in_progress')", "", concludeHunt},

	{"claim what runs", claimSteps, "s.state in ('enqueued', 'pending') and", "", machineHunt},
	{"claim before the parents are done", claimSteps, "and s.remaining_parents = 0 and", "and", hintHunt},
	{"claim before it is due", claimSteps, "and coalesce(s.due_at, v_now) <= v_now", "", hintHunt},
	{"claim for a dead host", claimSteps, "if not tasker_may_lease(p_host) then", "if false then", deadHunt},
	{"claim what the host does not serve", claimSteps, "from named n where n.served order by", "from named n order by", hintHunt},
	{"claim by the clock of before", claimSteps, "v_now := clock_timestamp();", "v_now := clock_timestamp() - interval '1 s';", dueHunt},

	{"a result without a claim for what runs", settlePosted, "s.state = 'pending' and coalesce", "coalesce", machineHunt},
	{"no result without a claim for another attempt", settlePosted, "s.state = 'enqueued' or s.state = 'pending' and coalesce(s.due_at, v_now) <= v_now", "s.state = 'enqueued'", attemptHunt},
	{"a result without a claim before it is due", settlePosted, "s.state = 'pending' and coalesce(s.due_at, v_now) <= v_now", "s.state = 'pending'", attemptHunt},
	{"a second result without a claim", settlePosted, "min(u.ord) as ord", "max(u.ord) as ord", twiceHunt},
	{"a result whose message is gone", settlePosted, "v_lease[v_ord] := v_never;", "null;", goneHunt},
	{"a message that outlives its result", settlePosted, "perform pgmq.delete(p_queue, v_judged);", "null;", machineHunt},
	{"a result that does not count and is dropped", settlePosted, "if o_verdict[i] in ('recorded', 'already_recorded') then", "if true then", machineHunt},
	{"a posted result that leaves its lease", settlePosted, "perform tasker_worker_count(v_row.leases, v_row.outcome);", "null;", leftHunt},
	{"results without the order of locks", settlePosted, "order by s.task_uuid, s.step_no for update of s;", "order by s.task_uuid, s.step_no;", postedOrderHunt},
	{"posted failures without the order of locks", settlePosted, "perform tasker_lock_failing(p_task, p_step, v_lease, p_outcome, p_claim_factor);", "null;", buryOrderHunt},

	{"a used key makes a task", createTasks, "array_agg(case when k.task_uuid is null then u.plan_id end order by u.ord)", "array_agg(u.plan_id order by u.ord)", machineHunt},

	{"a key for a request that is not the same", createTasks, "when k.request_hash = u.hash then 'duplicate'", "when true then 'duplicate'", policyHunt},
	{"an identity makes a second task", createTasks, "array_agg(case when i.has is null then u.plan_id end order by u.ord)", "array_agg(u.plan_id order by u.ord)", policyHunt},
	{"reject and return the task", createTasks, "or v_row.policy = 'return_existing' then 'duplicate'", "or true then 'duplicate'", policyHunt},
	{"return and reject", createTasks, "or v_row.policy = 'return_existing' then 'duplicate'", "then 'duplicate'", policyHunt},
	{"a policy for what may be many", createTasks, "where u.policy is not null", "where true", policyHunt},
	{"a rejected request uses up its key", createTasks, "elsif v_row.key is not null then", "elsif false then", policyHunt},
	{"a key for a task that is not made", createTasks, "update tasker_idempotency_keys k set task_uuid = v_has", "update tasker_idempotency_keys k set task_uuid = k.task_uuid", policyHunt},
	{"a twin is told of a task that is not made", createTasks, "on i.task_uuid = u.result;", "on i.task_uuid = u.result and u.plan_id is not null;", policyHunt},
	{"keys in any order", createTasks, "order by p.namespace_id, u.key, u.ord", "order by u.ord", keyOrderHunt},
	{"identities in any order", createTasks, "order by u.hash, u.ord", "order by u.ord", orderHunt},
	{"the identity of a task that is gone for ever", createTasks, "exit when v_has = any(p_task) or exists (select from tasker_tasks t where t.task_uuid = v_has);", "exit when true;", policyHunt},
	{"take over an identity that was taken over", createTasks, "where i.identity_hash = v_row.hash and i.task_uuid = v_has;", "where i.identity_hash = v_row.hash;", takeoverHunt},

	{"declare the living dead", "tasker_sweep_hosts", "x.alive_until < clock_timestamp()", "true", machineHunt},
	{"give back without waiting for claims under way", "tasker_release_host_steps", "perform pg_advisory_xact_lock(hashtext('tasker_hosts'), p_host);", "", zombieHunt},
	{"sweep what has a message", "tasker_sweep_messages", "where not exists (select from pgmq.%I q", "where true or not exists (select from pgmq.%I q", machineHunt},
	{"sweep no lost message", "tasker_sweep_messages", "if v_lost.found > 0 then", "if false then", lostHunt},
	{"see no stalled task", "tasker_sweep_messages", "filter (where not l.moves)", "filter (where false)", machineHunt},

	{"extend without the lease", "tasker_worker_heartbeat", "and s.state = 'in_progress' and s.lease_id = p_lease\n    returning", "and s.state = 'in_progress'\n    returning", heartbeatHunt},
	{"extend what has ended", "tasker_worker_heartbeat", "and s.state = 'in_progress' and s.lease_id = p_lease\n    returning", "and s.lease_id = p_lease\n    returning", heartbeatHunt},
	{"no word of a cancel", "tasker_worker_heartbeat", "and s.state = 'cancelled' and", "and false and", cancelledHunt},
	{"extend beyond the timeout", "tasker_worker_heartbeat", "lease_until = least(v_now + v_lease.lease, v_lease.deadline_at)", "lease_until = v_now + v_lease.lease", timeoutHunt},
	{"an answer after the timeout takes its credit", "tasker_sweep_worker_leases", "set lease_id = null", "set lease_id = s.lease_id", timeoutHunt},
	{"a lease longer than the timeout", claimSteps, "least(p_lease, w.timeout)", "p_lease", timeoutHunt},
	{"a lease of one longer than the timeout", claimSteps, "least(p_lease, v_one.timeout)", "p_lease", timeoutHunt},
	{"go on and wait", claimSteps, "for update skip locked;", "for update;", nextHunt},
	{"go on and forget", claimSteps, "perform tasker_enqueue_one(v_task, v_number, null) from", "perform from", nextHunt},
	{"hand many over for longer than the timeout", settleSteps, "least(p_lease_for, nullif(n.timeout_ms, 0) * interval '1 millisecond')", "p_lease_for", handManyHunt},
	{"hand many over in nobody's name", settleSteps, "case when p_worker is not null and r.state = 'in_progress' then jsonb_build_object('worker', p_worker) end", "null", handManyHunt},
	{"hand many over for ever", settleSteps, "then o.until else s.lease_until end", "then null else s.lease_until end", handManyHunt},
	{"exchange for more than was asked for", exchange, "p_qty - v_handed, 0", "p_qty, 0", handManyHunt},
	{"exchange across namespaces", complete, "p_room := 0;", "null;", acrossHunt},
	{"exchange and wait", exchange, "v_count = 0);", "true);", passHunt},
	{"exchange and wait for the locks", claimSteps, "for update of s skip locked", "for update of s", passHunt},
	{"exchange and wait after the locks", claimSteps, "u.ord <> all(v_missed)", "true", passHunt},
	{"exchange and send for what does not wait", claimSteps, "where s.state in ('enqueued', 'pending') and s.remaining_parents = 0 and coalesce(s.due_at, v_now) <= v_now) m", "where true) m", passHunt},
	{"exchange and forget", claimSteps, "perform tasker_enqueue(array_agg(m.task_uuid), array_agg(m.step_no))\n         from", "perform from", passHunt},
	{"go on while paused", "tasker_worker_next", "and not tasker_queue_paused(p_namespace || '_queue')", "", stopHunt},
	{"go on under a lease that the sweep does not see", "tasker_worker_job", "insert into tasker_worker_leases (lease_id, task_uuid, step_no, worker_id, lease, look_at, deadline_at)\n    values (", "perform (", machineHunt},
	{"go on and count nothing", "tasker_worker_job", "done = l.done + 1", "done = l.done", tallyHunt},
	{"go on for another", "tasker_worker_job", "where l.lease_id = p_done and l.worker_id = p_worker;", "where l.lease_id = p_done;", tallyHunt},
	{"go on for another and leave its lease", "tasker_worker_job", "perform tasker_worker_count(array[p_done], 'success');", "null;", tallyHunt},
	{"go on and leave the lease of a step that is done", "tasker_worker_job", "if p_done is not null then\n    update", "if false then\n    update", tallyHunt},
	{"an outcome of one that forgets what was done before", "tasker_worker_count", "if v_lease.done > 0 then", "if false then", tallyHunt},
	{"outcomes that forget what was done before", "tasker_worker_count", "where e.done > 0", "where false", tallyHunt},
	{"a lease that runs out with what was done before", sweepLeases, "where e.done > 0", "where false", tallyHunt},
	{"a lease that the worker takes to be longer, of one", "tasker_worker_job", "o_until := p_at + least(p_lease, v_step.timeout);", "o_until := p_at + p_lease;", timeoutHunt},
	{"a lease that the worker takes to be longer", "tasker_worker_jobs", "g.at + least(p_lease, k.timeout), g.at + k.timeout\n    from got g\n    join", "g.at + p_lease, g.at + k.timeout\n    from got g\n    join", timeoutHunt},
	{"end leases that were extended", sweepLeases, "and s.lease_id = l.lease_id and s.lease_until <= v_now) x", "and s.lease_id = l.lease_id) x", extendedHunt},
	{"end extended leases without a second look", sweepLeases, "perform tasker_lock_movable(array(", "perform cardinality(array(", extendHunt},
	{"end no lease", sweepLeases, "if v_back.tasks is not null then", "if false then", lapsedHunt},
	{"leases of workers that the sweep does not see", "tasker_worker_jobs", "from got g join kind k on k.plan_id = g.plan_id and k.step_no = g.step_no\n  )", "from got g join kind k on false\n  )", seenHunt},

	{"complete without the order of locks", complete, "order by x.task_uuid, x.step_no", "order by x.ord", completeHunt},
	{"complete under any lease", complete, "v_task, v_number, v_lease, array_fill", "v_task, v_number, array(select s.lease_id from unnest(v_task, v_number) u(t, n) join tasker_workflow_steps s on s.task_uuid = u.t and s.step_no = u.n), array_fill", completeHunt},
	{"end leases of what was refused", complete, "where u.verdict = 'recorded'", "", completeHunt},
	{"complete what cannot be stored", complete, "v_json := false;", "v_json := true;", completeHunt},
	{"complete what is too deep", complete, "<= v_policy.max_depth)", "<= 100000)", completeHunt},
	{"complete what swells", complete, "and not tasker_worker_swells(u.output, v_policy.max_result_bytes)", "", completeHunt},
	{"complete in any namespace", complete, "perform tasker_worker_may(v_namespace);", "null;", strangerHunt},
	{"an outcome that leaves its lease", "tasker_worker_count", "where l.lease_id = any(p_lease) returning", "where false returning", completeHunt},
	{"an outcome of one that leaves its lease", "tasker_worker_count", "where l.lease_id = p_lease[1] returning", "where false returning", countsHunt},
	{"count again and again", "tasker_sweep_worker_counts", "where c.ctid = any(", "where c.steps < 0 and c.ctid = any(", countsHunt},

	{"apply any lease", apply, "v_lease is distinct from p_lease or", "", machineHunt},
	{"apply without a lease", apply, "p_lease is null or", "", machineHunt},
	{"apply after the claim ran out", apply, "or v_until <= clock_timestamp()", "", claimsHunt},
	{"two claims of one task", claimTask, "if v_task.finalize_until > v_now then", "if false then", claimsHunt},
	{"a claim for ever", claimTask, "if v_task.finalize_until > v_now then", "if v_task.finalize_until is not null then", claimsHunt},
	{"claim a task that has ended", claimTask, "elsif v_task.state <> 'in_progress' then", "elsif false then", machineHunt},
	{"release another's claim", "release_finalization_claim", "and (p_lease_id is null or t.finalize_lease = p_lease_id)", "", claimsHunt},
	{"run anew under the old lease", retrySteps, "lease_id = null, lease_host = null,", "", machineHunt},
	{"run anew with the old attempts", retrySteps, "attempts = 0, claims = 0,", "", machineHunt},
	{"run anew without a message", retrySteps, "perform tasker_enqueue(array_fill(p_task, array[cardinality(o_steps)]), o_steps);", "", machineHunt},
	{"run anew in a failed task", retrySteps, "perform tasker_reopen_task(p_task, p_host, v_note);", "", againHunt},
	{"run anew what has not failed", retrySteps, "and s.state = 'error' and", "and", machineHunt},
	{"run anew with the old marks of doom", retrySteps, "perform tasker_mark_doom(p_task, v_failed);", "", againHunt},
	{"run anew and forget who else has failed", retrySteps, "v_failed := tasker_fails_without(p_task, o_steps);", "v_failed := false;", othersHunt},
	{"run anew and leave the dead letter", retrySteps, "perform tasker_close_letters(p_task, o_steps, 'replayed', p_reason, p_by);", "", againHunt},
	{"resolve what runs", resolveStep, "when v_step.state = 'in_progress' then 'running'", "", resolveHunt},
	{"resolve what is settled", resolveStep, "when v_step.state in ('complete', 'cancelled', 'resolved_manually') then 'settled'", "", resolveHunt},
	{"resolve what waits for parents", resolveStep, "when v_step.remaining_parents > 0 then 'waiting'", "", resolveHunt},
	{"skip what must run", resolveStep, "when p_skip and not v_step.skippable then 'not_skippable'", "", resolveHunt},
	{"resolve in a task that has ended", resolveStep, "when o_task_state not in ('in_progress', 'error') then 'ended'", "", resolveHunt},
	{"resolve and count down no child", resolveStep, "set remaining_parents = s.remaining_parents - 1,", "set", resolveHunt},
	{"resolve and count down no sink", resolveStep, "open_sinks = t.open_sinks - 1", "open_sinks = t.open_sinks", resolveHunt},
	{"resolve and send no message", resolveStep, "if v_ready <> '{}' then", "if false then", resolveHunt},
	{"resolve and look no more", resolveStep, "o_task_state := tasker_conclude_task(p_task, p_host);", "", resolveHunt},
	{"repair without the locks of the steps", "tasker_lock_task", "perform tasker_lock_movable(array[p_task]);\n  perform from tasker_workflow_steps s where s.task_uuid = p_task order by s.step_no for update;", "", claimedHunt},
	{"repair without the lock of the task", "tasker_lock_task", "where t.task_uuid = p_task for update;", "where t.task_uuid = p_task;", concludedHunt},

	{"create while paused", createTasks, "v_paused := tasker_paused_namespaces();", "", pausedHunt},
	{"claim while paused", claimSteps, "if tasker_queue_paused(p_queue) then", "if false then", pausedHunt},
	{"hand children back while paused", settleSteps, "v_paused := tasker_paused_namespaces();", "", pausedHunt},
	{"pause without waiting for what is under way", "tasker_await_grants", "perform pg_advisory_xact_lock(hashtext('tasker_hosts'), v_host);", "", pausedHunt},

	{"rouse without the door", rouse, "if pg_catalog.pg_try_advisory_xact_lock_shared(pg_catalog.hashtext('tasker_door'), 0) then", "if true then", restHunt},
	{"rouse nobody", rouse, "perform pg_catalog.pg_notify('tasker_rouse', '');", "null;", restHunt},
	{"rouse when nobody rests", rouse, "return null;\n    end if;", "end if;", restHunt},
	{"lease steps to a host that rests", "tasker_may_lease", " and not h.rests", "", restHunt},
	{"rise without a word", "tasker_heartbeat", "rests = h.rests and h.rises >= p_rises,", "", restHunt},
	{"rest by a call that comes too late", restFunction, " and h.rises = p_rises", "", restHunt},
	{"rest beside a host that works", restFunction, "not h.rests or h.alive_until", "h.alive_until", restHunt},
	{"rest beside a host that died at rest", restFunction, "not h.rests or h.alive_until < clock_timestamp()", "not h.rests", restHunt},
	{"rest beside the steps of a dead host", restFunction, "then h.swept_at is null else", "then false else", restHunt},
	{"rest beside outside workers", restFunction, "when exists (select from tasker_worker_leases) then", "when false then", restHunt},
	{"rest though work waits", restFunction, "from tasker_waiting(p_queues, p_handlers, p_inboxes) w limit 1", "from tasker_waiting(p_queues, p_handlers, p_inboxes) w limit 0", restHunt},
	{"rest beyond the time of a message", restFunction, "v_first := least(v_first, v_next);", "null;", restHunt},
	{"rest beside a queue that rouses nobody", restFunction, "where not tasker_queue_watched(q)", "where false", restHunt},

	{"cancel leaves steps", "tasker_end_task", "and s.state = any(v_gone);\n  update tasker_tasks", "and s.state in ('pending', 'enqueued');\n  update tasker_tasks", machineHunt},
}

func TestMutants(t *testing.T) {
	t.Parallel()
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			m.apply(t, b)
			found := m.hunt(t, b)
			require.NotEmpty(t, found, "the loss of the guard was not noticed")
			first, _, _ := strings.Cut(found, "\n")
			t.Logf("killed: %.200s", first)
		})
	}
}

// apply replaces the guard in the function's source.
func (m mutant) apply(t *testing.T, b *bed) {
	t.Helper()
	source := one[string](t, b, "select pg_get_functiondef(p.oid) from pg_proc p where p.proname = $1", m.function)
	require.Contains(t, source, m.old, "the guard's text has changed")
	b.exec(t, strings.ReplaceAll(source, m.old, m.new))
}

// machineHunt plays histories until one goes wrong.
func machineHunt(t *testing.T, b *bed) (found string) {
	t.Helper()
	// What they find only after a long time has a hunt of its own: see hunts_test.go.
	for try := 0; try < 6 && found == ""; try++ {
		rapid.Check(t, func(rt *rapid.T) {
			if found != "" {
				return
			}
			m := newMachine(rt, b)
			m.hunts = true
			m.play()
			found = m.found
		})
	}
	return found
}

// cancelledHunt: the task of an outside worker's step is cancelled, and the worker asks
// for more time.
func cancelledHunt(t *testing.T, b *bed) string {
	t.Helper()
	host, w := b.host(t), outsider{b.pool}
	task, _ := b.create(t, b.grant(host, 0), b.mustPlan(t, fan(1)...))
	jobs, err := w.claim(t.Context(), handlers, 1, time.Hour)
	require.NoError(t, err)
	require.Len(t, jobs, 1)
	_, cancelled, err := b.store.CancelTask(t.Context(), task, store.Operator{Reason: "no use"}, host)
	require.NoError(t, err)
	require.True(t, cancelled)
	verdict, reason, err := w.heartbeat(t.Context(), jobs[0].StepKey, jobs[0].ID, nil)
	require.NoError(t, err)
	if verdict != "cancel_requested" || reason != "task_cancelled" {
		return fmt.Sprintf("heartbeat of a cancelled step: %s, %s", verdict, reason)
	}
	return oracleSays(t, b)
}

// doomedHunt settles the last two steps of a failing task at the same time: the second
// before the first has committed.
func doomedHunt(t *testing.T, b *bed) string {
	t.Helper()
	p := b.mustPlan(t, doomedFan(2)...)
	host := b.host(t)
	g := b.grant(host, 3)
	task, leases := b.create(t, g, p)
	b.settle(t, g, vocab.OutcomePermanent, leases[2])
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), settleOneSQL, host, task, leases[0].ID)
	require.NoError(t, err)
	err = blocked(t, b, tx, func(ctx context.Context) error {
		_, err := b.store.Settle(ctx, g, policy, []store.Settlement{settlement(leases[1].StepKey, leases[1].ID, vocab.OutcomeSuccess)})
		return err
	})
	require.NoError(t, err)
	return refusedOrWrong(t, judge(t.Context(), b.pool))
}

// roomHunt: a host with room for one step settles one that makes two ready.
func roomHunt(t *testing.T, b *bed) string {
	t.Helper()
	g := b.grant(b.host(t), 1)
	_, leases := b.create(t, g, b.mustPlan(t, diamond()...))
	if got := b.settle(t, g, vocab.OutcomeSuccess, leases...); len(got.Leases) != 1 {
		return fmt.Sprintf("%d leases, room was for one", len(got.Leases))
	}
	return oracleSays(t, b)
}

// partHunt: a host settles a step with children for a handler that it does not serve, and
// for one that it does.
func partHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := diamond()
	steps[1].Handler = handlers[1]
	p, host := b.mustPlan(t, steps...), b.host(t)
	alpha := store.Grant{Host: host, Room: 5, Served: b.all[:1]}
	task, leases := b.create(t, alpha, p)
	got := b.settle(t, alpha, vocab.OutcomeSuccess, leases...).Leases
	if len(got) != 1 || got[0].Number != 2 {
		return fmt.Sprintf("the host was handed %v, it serves step 2", got)
	}
	if state := b.stepState(t, task, 1); state != vocab.StepEnqueued {
		return fmt.Sprintf("the step for others is %s", state)
	}
	return oracleSays(t, b)
}

// markHunt: while a step of a task runs, another one fails for good; the task ends with
// the last of those that follow the first. First one task alone, then two together.
func markHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := append(chain(3), step("aside", nil, nil))
	p, g := b.mustPlan(t, steps...), b.grant(b.host(t), 4)
	for n := 1; n <= 2; n++ {
		var tasks []vocab.UUID
		var going, failing []store.Lease
		for range n {
			task, leases := b.create(t, g, p)
			tasks, going, failing = append(tasks, task), append(going, leases[0]), append(failing, leases[1])
		}
		b.settle(t, g, vocab.OutcomePermanent, failing...)
		for range 3 {
			going = b.settle(t, g, vocab.OutcomeSuccess, going...).Leases
		}
		for _, task := range tasks {
			if state := b.taskState(t, task); state != vocab.TaskError {
				return fmt.Sprintf("nothing moves in a task that is %s", state)
			}
		}
	}
	return oracleSays(t, b)
}

// refusedOrWrong fails the test if the server was not available.
func refusedOrWrong(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	if class := store.Classify(err); class == store.Unavailable || class == store.Cancelled {
		require.NoError(t, err)
	}
	return err.Error()
}

// blocked runs do until it waits for a lock of the open transaction, then commits that,
// and returns do's result.
func blocked(t *testing.T, b *bed, tx pgx.Tx, do func(ctx context.Context) error) error {
	t.Helper()
	return onceBlocked(t, b, func() error { return tx.Commit(t.Context()) }, do)
}

// onceBlocked runs do until it waits for a lock, then end, and returns do's result.
func onceBlocked(t *testing.T, b *bed, end func() error, do func(ctx context.Context) error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do(t.Context()) }()
	for waiting := false; !waiting; {
		select {
		case err := <-done:
			require.NoError(t, end())
			return err // it did not wait
		default:
		}
		waiting = one[bool](t, b, `select exists (select from pg_stat_activity a
		                            where a.datname = current_database() and a.wait_event_type = 'Lock')`)
	}
	require.NoError(t, end())
	return <-done
}

// settleOneSQL settles step 0 of a task.
const settleOneSQL = `
select tasker_settle_steps($1, 0, '{}', array[$2::uuid], '{0}', array[$3::uuid], '{success}', '{1}', '{null}', '{null}', '{null}', '{0}')`

// zombieHunt: a host claims, and before that commits it is declared dead and its steps
// are given back.
func zombieHunt(t *testing.T, b *bed) string {
	t.Helper()
	p := b.mustPlan(t, fan(1)...)
	host := b.host(t)
	b.create(t, b.grant(host, 0), p)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select tasker_claim_steps($1, $2, $3, $4, 5)", host, queue, handlers, b.all)
	require.NoError(t, err)
	b.exec(t, "update tasker_hosts set alive_until = clock_timestamp() - interval '1 s'")
	gone, err := b.store.SweepHosts(t.Context())
	require.NoError(t, err)
	require.Len(t, gone, 1)
	err = blocked(t, b, tx, func(ctx context.Context) error {
		_, err := b.store.ReleaseHost(ctx, host, "dead", policy.ClaimFactor)
		return err
	})
	require.NoError(t, err)
	return oracleSays(t, b)
}

// sweepHunt: a host settles, and before that commits it is declared dead and its steps
// are given back.
func sweepHunt(t *testing.T, b *bed) string {
	t.Helper()
	p := b.mustPlan(t, fan(1)...)
	host := b.host(t)
	_, leases := b.create(t, b.grant(host, 1), p)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), settleOneSQL, host, leases[0].Task, leases[0].ID)
	require.NoError(t, err)
	b.exec(t, "update tasker_hosts set alive_until = clock_timestamp() - interval '1 s'")
	_, err = b.store.SweepHosts(t.Context())
	require.NoError(t, err)
	err = blocked(t, b, tx, func(ctx context.Context) error {
		_, err := b.store.ReleaseHost(ctx, host, "dead", policy.ClaimFactor)
		return err
	})
	return refusedOr(t, b, err)
}

// dueHunt: a step fails with a short wait, and hosts look at the queue all the time: the
// wait is that of the policy, and the first to see the message gets the step.
func dueHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := fan(1)
	steps[0].Retry = workflow.Retry{
		Retryable: true, MaxAttempts: 40, Backoff: workflow.BackoffFixed, Base: 2 * time.Millisecond, Cap: time.Second,
	}
	p, g := b.mustPlan(t, steps...), b.grant(b.host(t), 1)
	_, leases := b.create(t, g, p)
	for range 39 {
		b.settle(t, g, vocab.OutcomeRetryable, leases...)
		wait := one[float64](t, b, "select extract(epoch from due_at - updated_at)::float8 * 1000 from tasker_workflow_steps")
		if wait != 2 {
			return fmt.Sprintf("the wait is %v ms", wait)
		}
		for leases = nil; len(leases) == 0; leases = b.claim(t, g) {
			if one[int](t, b, "select count(*) from pgmq.q_"+queue) == 0 {
				return "the message of a due step was dropped"
			}
		}
	}
	return ""
}

// deadHunt: a host that was declared dead and swept continues.
func deadHunt(t *testing.T, b *bed) string {
	t.Helper()
	p, zombie := b.mustPlan(t, chain(2)...), b.host(t)
	_, leases := b.create(t, b.grant(zombie, 1), p)
	b.create(t, b.grant(zombie, 0), p)
	b.exec(t, "update tasker_hosts set alive_until = clock_timestamp() - interval '1 s'")
	_, err := b.store.SweepHosts(t.Context())
	require.NoError(t, err)
	// Swept before its step could be given back: it may still settle it.
	b.exec(t, "update tasker_hosts set swept_at = clock_timestamp()")
	b.settle(t, b.grant(zombie, 1), vocab.OutcomeSuccess, leases...)
	claimed := b.claim(t, b.grant(zombie, 5))
	_, created := b.create(t, b.grant(zombie, 5), p)
	if len(claimed)+len(created) > 0 {
		return "a dead host was given steps"
	}
	return oracleSays(t, b)
}

// capHunt: steps that are given back again and again, and one that may not be
// tried again.
func capHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := fan(2)
	steps[1].Retry = workflow.Retry{MaxAttempts: 9, Backoff: workflow.BackoffNone}
	p, g := b.mustPlan(t, steps...), b.grant(b.host(t), 2)
	task, leases := b.create(t, g, p)
	b.settle(t, g, vocab.OutcomeRetryable, leases[1])
	b.settle(t, g, vocab.OutcomeReleased, leases[0])
	b.settle(t, g, vocab.OutcomeReleased, b.claim(t, g)...)
	for n := range steps {
		if state := b.stepState(t, task, n); state != vocab.StepError {
			return fmt.Sprintf("step %d is %s", n, state)
		}
	}
	return oracleSays(t, b)
}

// hintHunt: hints for a step that is not due, for one whose parents are not done, and for
// one that the host does not serve, without the headers that would keep it from looking.
func hintHunt(t *testing.T, b *bed) string {
	t.Helper()
	steps := fan(3)
	steps[0].Handler = handlers[1]
	steps[0].Children, steps[2].Parents = []int32{2}, []int32{0}
	for i := range steps {
		steps[i].Retry = workflow.Retry{Retryable: true, MaxAttempts: 3, Backoff: workflow.BackoffFixed, Base: time.Hour, Cap: time.Hour}
	}
	p, host := b.mustPlan(t, steps...), b.host(t)
	alpha := store.Grant{Host: host, Room: 5, Served: b.all[:1]}
	task, leases := b.create(t, alpha, p) // step 0 is beta's: enqueued
	b.settle(t, alpha, vocab.OutcomeRetryable, leases...)
	b.exec(t, "select tasker_enqueue(array[$1::uuid, $1, $1], '{0, 1, 2}')", task)
	b.exec(t, "update pgmq.q_"+queue+" set headers = null")
	c, err := b.store.Claim(t.Context(), alpha, queue, handlers[:1], 0)
	require.NoError(t, err)
	if len(c.Leases) > 0 {
		return fmt.Sprintf("leased step %d", c.Leases[0].Number)
	}
	if got := b.claim(t, b.grant(host, 5)); len(got) != 1 || got[0].Number != 0 {
		return fmt.Sprintf("the message for another host is gone: %v", got)
	}
	return oracleSays(t, b)
}

// concludeHunt: a task that has ended is concluded again.
func concludeHunt(t *testing.T, b *bed) string {
	t.Helper()
	p, g := b.mustPlan(t, fan(1)...), b.grant(b.host(t), 1)
	task, leases := b.create(t, g, p)
	b.settle(t, g, vocab.OutcomePermanent, leases...)
	b.exec(t, "select tasker_conclude_task($1, null)", task)
	return oracleSays(t, b)
}

// claimsHunt: a processor whose claim has expired continues, both before and after it has
// claimed the task again in another goroutine.
func claimsHunt(t *testing.T, b *bed) string {
	t.Helper()
	p := b.mustPlan(t, fan(1)...)
	task, _ := b.create(t, b.grant(b.host(t), 0), p)
	b.exec(t, "update tasker_workflow_steps set state = 'resolved_manually'")
	f := finalizer.New(b.pool, "p", time.Hour)
	first, err := f.Claim(t.Context(), task)
	require.NoError(t, err)
	require.True(t, first.Claimed)
	b.exec(t, "update tasker_tasks set finalize_until = clock_timestamp()")
	if _, err := f.Apply(t.Context(), task, first.Lease); !errors.Is(err, finalizer.ErrClaimLost) {
		return fmt.Sprintf("applied a claim that had run out: %v", err)
	}
	second, err := f.Claim(t.Context(), task)
	require.NoError(t, err)
	if !second.Claimed {
		return "a claim that has run out is still in the way"
	}
	if third, err := f.Claim(t.Context(), task); err != nil || third.Claimed {
		return fmt.Sprintf("claimed what is claimed: %v", err)
	}
	if released, err := f.Release(t.Context(), task, first.Lease); err != nil || released {
		return fmt.Sprintf("released another claim: %v", err)
	}
	state, err := f.Apply(t.Context(), task, second.Lease)
	require.NoError(t, err)
	require.Equal(t, vocab.TaskComplete, state)
	return ""
}

func oracleSays(t *testing.T, b *bed) string {
	t.Helper()
	wrong, err := violations(t.Context(), b.pool)
	require.NoError(t, err)
	return strings.Join(wrong, "\n")
}

// The scenarios find nothing in the unchanged engine.
func TestScenariosOfTheMutants(t *testing.T) {
	t.Parallel()
	for name, hunt := range map[string]func(*testing.T, *bed) string{
		"zombie": zombieHunt, "sweep": sweepHunt, "due": dueHunt, "conclude": concludeHunt, "claims": claimsHunt, "hint": hintHunt, "dead": deadHunt, "cap": capHunt,
		"extend": extendHunt, "extended": extendedHunt, "lapsed": lapsedHunt, "timeout": timeoutHunt, "heartbeat": heartbeatHunt,
		"complete": completeHunt, "stranger": strangerHunt, "counts": countsHunt,
		"room": roomHunt, "part": partHunt, "mark": markHunt, "next": nextHunt, "tally": tallyHunt, "handed": handedHunt, "stop": stopHunt,
		"pass": passHunt, "hand many": handManyHunt, "across": acrossHunt,
		"claimed": claimedHunt, "concluded": concludedHunt, "others": othersHunt, "paused": pausedHunt, "doomed": doomedHunt, "cancelled": cancelledHunt,
		"takeover": takeoverHunt, "order": orderHunt, "key order": keyOrderHunt,
		"fence": fenceHunt, "join": joinHunt, "tries": triesHunt, "excuse": excuseHunt, "seen": seenHunt, "gone": goneHunt, "left": leftHunt, "lost": lostHunt,
		"again": againHunt, "resolve": resolveHunt,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Empty(t, hunt(t, newBed(t)))
		})
	}
}
