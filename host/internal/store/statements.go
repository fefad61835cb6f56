package store

// All statements of this package. A test prepares each against the migrated schema;
// columns are named, parameters cast.
const (
	sqlRegisterHost = `select tasker_register_host($1::text, $2::text, $3::text, $4::text, $5::bigint)`

	sqlHeartbeat = `
select o_alive, o_task, o_step, o_lease, o_reason
  from tasker_heartbeat($1::integer, $2::text, $3::text[], $4::bigint, $5::uuid[], $6::bigint)`

	sqlHostLeases = `
select o_task, o_step, o_lease, o_last from tasker_host_leases($1::integer, $2::uuid, $3::integer)`

	sqlSweepHosts = `select o_host, o_name, o_late from tasker_sweep_hosts()`

	sqlReleaseHostSteps = `
select o_released, o_last, o_busy
  from tasker_release_host_steps($1::integer, $2::text, $3::uuid, $4::integer, $5::integer)`

	sqlHostSwept = `
with told as (delete from tasker_step_progress where host_id = $1::integer)
update tasker_hosts set swept_at = clock_timestamp() where host_id = $1::integer and swept_at is null`

	sqlSweepMessages = `
select o_enqueued, o_last, o_stalled from tasker_sweep_messages($1::uuid, $2::integer, $3::interval)`

	sqlEnsurePartitions = `select tasker_ensure_partitions(clock_timestamp(), $1::integer, $2::text, $3::integer)`

	sqlNextGeneration = `select nextval('tasker_plugin_generation')`

	sqlCreateTasks = `
select o_outcome, o_task, o_steps, o_leases
  from tasker_create_tasks($1::integer, $2::integer, $3::integer[],
                           $4::uuid[], $5::integer[], $6::text[], $7::integer[], $8::bytea[], $9::text[],
                           $10::text[], $11::bytea[], $12::text, $13::bigint[], $14::text[])`

	sqlClaimSteps = `
select o_task, o_step, o_lease, o_attempt, o_plan, o_generation, o_last, o_taken
  from tasker_claim_steps($1::integer, $2::text, $3::text[], $4::integer[], $5::integer, $6::bigint)`

	sqlSettleSteps = `
select o_verdict, o_task, o_step, o_lease, o_attempt, o_plan, o_generation, o_finished, o_finished_state, o_due, o_enqueued
  from tasker_settle_steps($1::integer, $2::integer, $3::integer[],
                           $4::uuid[], $5::integer[], $6::uuid[], $7::text[]::tasker_outcome[], $8::bigint[],
                           $9::text[], $10::text[], $11::text[], $12::bigint[], $13::bigint, $14::integer)`

	sqlStepInputs = `
select o_task, o_step, o_value from tasker_step_inputs($1::uuid[], $2::uuid[], $3::integer[])`

	sqlCancelTask = `select o_state::text, o_cancelled from tasker_cancel_task($1::uuid, $2::text, $3::text, $4::integer)`
)

// statements lists all of the above and those of the other files, for the test that
// prepares them.
var statements = map[string]string{
	"register host": sqlRegisterHost, "heartbeat": sqlHeartbeat, "host leases": sqlHostLeases,
	"sweep hosts": sqlSweepHosts, "release host steps": sqlReleaseHostSteps, "host swept": sqlHostSwept,
	"sweep messages": sqlSweepMessages, "ensure partitions": sqlEnsurePartitions, "next generation": sqlNextGeneration,
	"waiting": sqlWaiting, "create tasks": sqlCreateTasks, "claim steps": sqlClaimSteps, "settle steps": sqlSettleSteps,
	"step inputs": sqlStepInputs, "cancel task": sqlCancelTask,
	"pause queue": sqlPauseQueue, "resume queue": sqlResumeQueue, "await grants": sqlAwaitGrants, "list queues": sqlListQueues, "queue place": sqlQueuePlace, "list hosts": sqlListHosts, "host plugins": sqlHostPlugins,
	"read letter": sqlReadLetter, "list letters": sqlListLetters, "replay message": sqlReplayMessage, "discard letter": sqlDiscardLetter,
	"retry steps": sqlRetrySteps, "resolve step": sqlResolveStep, "resolve task": sqlResolveTask,
	"upsert namespace": sqlUpsertNamespace, "upsert handlers": sqlUpsertHandlers, "insert template": sqlInsertTemplate,
	"template digest": sqlTemplateDigest, "insert plan": sqlInsertPlan, "insert steps": sqlInsertSteps,
	"find plan": sqlFindPlan, "load plan": sqlLoadPlan, "load plan steps": sqlLoadPlanSteps, "handler ids": sqlHandlerIDs, "queues of": sqlQueuesOf,
	"set aside": sqlSetAside, "settle posted": sqlSettlePosted, "note inbox": sqlNoteInbox, "step progress": sqlStepProgress, "tell progress": sqlTellProgress,
	"read task": sqlReadTask, "list tasks": sqlListTasks, "list active tasks": sqlListActiveTasks, "snapshot": sqlSnapshot,
	"task plan": sqlTaskPlan, "read steps": sqlReadSteps, "read history": sqlReadHistory,
	"list templates": sqlListTemplates, "read template": sqlReadTemplate, "latest version": sqlLatestVersion,
	"served now": sqlServedNow, "unserved": sqlUnserved,
	"record plugin events": sqlRecordPluginEvents, "quarantines": sqlQuarantines, "last good": sqlLastGood,
	"plugin events": sqlPluginEvents, "plugin generations": sqlPluginGenerations,
	"server facts": sqlServerFacts, "clock": sqlClock, "host facts": sqlHostFacts, "work facts": sqlWorkFacts,
	"sweep lanes": sqlSweepLanes, "rest": sqlRest, "watch queue": sqlWatchQueue, "lie down": sqlLieDown, "try the door": sqlTryDoor, "get up": sqlGetUp,
	"list workers": sqlListWorkers, "take duty": sqlTakeDuty, "old days": sqlOldDays, "day is over": sqlDayIsOver,
	"drop day": sqlDropDay, "prune tasks": sqlPruneTasks, "prune records": sqlPruneRecords, "allow": sqlAllow,
	"sweep worker leases": sqlSweepWorkerLeases, "set worker policy": sqlSetWorkerPolicy,
	"messages set aside": sqlMessagesSetAside, "limbo": sqlLimbo, "queue depths": sqlQueueDepths, "table sizes": sqlTableSizes, "worker leases": sqlWorkerLeases, "partitions": sqlPartitions,
	"claim health": sqlClaimHealth, "backlogs": sqlBacklogs, "connections": sqlConnections,
	"create token": sqlCreateToken, "list tokens": sqlListTokens, "live tokens": sqlLiveTokens, "revoke token": sqlRevokeToken,
	"record audit": sqlRecordAudit, "list audit": sqlListAudit,
}
