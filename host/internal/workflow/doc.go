// Package workflow is the domain without I/O: it reads templates, compiles them
// into plans, and implements the rules of graphs, retries and readiness. It must
// not depend on databases, queues, plugins or clocks (callers pass the time).
// Nothing here is started or stopped; every value is immutable once created and
// safe for concurrent use.
//
// # Templates and plans
//
// [ParseTemplate] reads the YAML of one template version strictly and reports
// everything that is wrong with it at once, as a [*TemplateError].
// [Template.Plans] compiles it: the base plan, and one for each environment the
// template names, with steps numbered in topological order. The order is the
// same for the same template, everywhere and always.
//
// # Readiness
//
// [Readiness] and [Context] define how work proceeds. SQL functions of the same
// names answer the same questions about stored tasks; a property test compares
// them. For a step:
//
//	dependencies_satisfied  every parent is complete or resolved_manually
//	retry_eligible          not settled, attempts < max_attempts, and
//	                        retryable or attempts = 0
//	ready_for_execution     pending, both of the above, and due_at ≤ now or unset
//
// After a failed attempt that will be repeated, the step is pending with a due
// time. After a permanent or exhausted failure it is in error, which blocks the
// steps below it. How often a step was claimed does not matter here: that cap
// applies when a claim is given back. For a task, the first row that holds:
//
//	condition                              execution_status          recommended_action
//	a step is ready                        has_ready_steps           execute_ready_steps
//	a step is in_progress or enqueued      processing                wait_for_completion
//	a step waits only for its due time,    waiting_for_dependencies  wait_for_dependencies
//	or there are no steps
//	every step is complete or resolved     all_complete              finalize_task
//	otherwise: nothing moves any more      blocked_by_failures       handle_failures
//
// "Waits only for its due time" is pending, dependencies satisfied, retry
// eligible, not yet due. A step below a failed or cancelled one never gets
// there, so it does not keep a task waiting; and a task with a failed step is
// not blocked as long as other branches make progress. Its health:
//
//	condition                                             health_status
//	no steps                                              unknown
//	a step is in error or cancelled, or the task is       blocked
//	blocked_by_failures: it cannot complete by itself
//	a step that is not settled has failed before          recovering
//	otherwise                                             healthy
//
// completed_steps counts resolved_manually too; cancelled steps count in
// total_steps only. completion_percentage is 100·completed/total rounded half up
// to two decimals, 0 of no steps.
package workflow
