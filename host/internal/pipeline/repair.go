package pipeline

import "github.com/tasker-systems/tasker-host/sdk/vocab"

// Repaired reports that an operator has moved a task to the given state: there may be
// steps to claim, or the task has ended and the steps of it that this host still runs are
// void.
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

// QueueResumed reports that steps of a paused queue may start again.
func (e *Engine) QueueResumed() { e.wake() }
