package readmodel

import (
	"github.com/tasker-systems/tasker-host/sdk/task"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// What the API says about tasks is public: clients written in Go import it from package
// task. Here it has the names that the host uses.
type (
	Task           = task.Task
	TaskPage       = task.TaskPage
	TaskError      = task.TaskError
	Progress       = task.Progress
	Step           = task.Step
	StepPage       = task.StepPage
	StepError      = task.StepError
	StepProgress   = task.StepProgress
	RunningStep    = task.RunningStep
	Lease          = task.Lease
	Transition     = task.Transition
	TransitionPage = task.TransitionPage
	Snapshot       = task.Snapshot
	Problem        = task.Problem
	Issue          = task.Issue
)

// NewProgress is [task.NewProgress].
func NewProgress(steps map[vocab.StepState]int) Progress { return task.NewProgress(steps) }
