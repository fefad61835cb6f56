package task

// Problem is an error as described by RFC 9457 (application/problem+json). Code is stable, for
// programs to branch on. Detail is for people.
type Problem struct {
	Type      string  `json:"type" format:"uri" doc:"urn:tasker:problem: followed by the code."`
	Title     string  `json:"title" doc:"The code in words."`
	Status    int     `json:"status" doc:"The HTTP status."`
	Code      string  `json:"code" doc:"Stable name of the problem, such as template_not_found."`
	Detail    string  `json:"detail,omitempty" doc:"What is wrong here, and what to do."`
	TaskUUID  string  `json:"task_uuid,omitempty" format:"uuid" doc:"The task that is in the way: the one with the idempotency key, or with the same template and context."`
	RequestID string  `json:"request_id,omitempty" doc:"Identifies the request in the host's log."`
	Issues    []Issue `json:"errors,omitempty" doc:"Everything that is wrong, one by one."`
}

// Issue is one thing that is wrong with a request.
type Issue struct {
	Pointer  string `json:"pointer,omitempty" doc:"JSON pointer into the request body, such as /context/amount."`
	Location string `json:"location,omitempty" doc:"The place, if it is not in a JSON body: query.limit, path.task_uuid, or file:line:column."`
	Detail   string `json:"detail"`
}
