package pipeline

import "github.com/tasker-systems/tasker-host/sdk/vocab"

// Repaired says that an operator has moved a task, which is in this state now:
// there may be steps to claim, or the task has ended and what this host still runs
// of it is void.
func (e *Engine) Repaired(task vocab.UUID, state vocab.TaskState) {
	if state.Active() {
		e.wake()
		return
	}
	for _, a := range e.held.ofTask(task) {
		e.cancel(a, "task_"+string(state))
	}
	e.inputs.forget(task)
	e.hub.finished(task, state)
}

// QueueResumed says that steps of a queue that was paused may start again.
func (e *Engine) QueueResumed() { e.wake() }
