package task

// A list comes in pages: NextCursor, given back as the cursor parameter,
// continues it, and is absent on the last page.

// TaskPage is a page of tasks, newest first.
type TaskPage struct {
	Items      []Task `json:"items"`
	NextCursor string `json:"next_cursor,omitempty"`
}

// StepPage is a page of a task's steps in topological order.
type StepPage struct {
	Items      []Step `json:"items"`
	NextCursor string `json:"next_cursor,omitempty"`
}

// TransitionPage is a page of a task's history, oldest first.
type TransitionPage struct {
	Items      []Transition `json:"items"`
	NextCursor string       `json:"next_cursor,omitempty"`
}
