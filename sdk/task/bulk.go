package task

// BulkAnswer is one line of the answer to a bulk submission: the answer to one submitted line,
// in the order of the lines, or, in the last line, how the whole submission ended.
type BulkAnswer struct {
	Line     int64    `json:"line,omitempty" doc:"The line that this answers."`
	TaskUUID string   `json:"task_uuid,omitempty" format:"uuid" doc:"The task. Omitted if the line was refused."`
	Created  bool     `json:"created,omitempty" doc:"Whether this request created the task. If not, an earlier one did."`
	Problem  *Problem `json:"problem,omitempty" doc:"Why the line was refused."`
	End      *BulkEnd `json:"end,omitempty" doc:"In the last line only."`
}

// BulkEnd says how a bulk submission ended.
type BulkEnd struct {
	Created  int64 `json:"created" doc:"Lines that created a task."`
	Existing int64 `json:"existing" doc:"Lines whose task already existed."`
	Refused  int64 `json:"refused"`
	// Problem is why the host stopped before the end.
	Problem           *Problem `json:"problem,omitempty" doc:"Why the host stopped early. Send the lines without an answer again, with the same idempotency keys."`
	RetryAfterSeconds int      `json:"retry_after_seconds,omitempty" doc:"How long to wait before that."`
}
