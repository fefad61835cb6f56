package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/sdk/task"
)

const (
	bulkPath  = "/v1/tasks/bulk"
	linesType = "application/x-ndjson"

	maxBulks     = 16               // bulk submissions that one host serves at a time
	bulkPatience = 30 * time.Second // how long a chunk waits for the database
	bulkRetry    = 2 * time.Second  // told to clients if there are too many at once
)

// BulkLineRequest is one line of a bulk submission: a submission and its key.
type BulkLineRequest struct {
	TaskRequest
	IdempotencyKey string `json:"idempotency_key,omitempty" maxLength:"255" pattern:"^[!-~]+$" patternDescription:"printable ASCII without spaces" doc:"As the header of a single submission. Default: the key of the whole request, if it has one, a dash and the line's number."`
}

type bulkInput struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"200" pattern:"^[!-~]+$" patternDescription:"printable ASCII without spaces" doc:"Gives each line its own key: this, a dash and the line's number. Lines can then safely be sent again with the same key and numbers."`
	FirstLine      int64  `query:"first_line" minimum:"1" maximum:"1000000000000000" default:"1" doc:"The number of the first line, to continue where a connection was lost."`
}

func (r *routes) bulkRoute() {
	line := schemaOf[BulkLineRequest](r.api)
	register(r, huma.Operation{
		OperationID: "submit-tasks", Method: http.MethodPost, Path: bulkPath, Tags: []string{"tasks"},
		Summary: "Submit tasks in bulk",
		Description: "A line of JSON for each task, any number of them; the schema is that of a line. Each line is answered by a line, in order and while " +
			"later ones are still arriving: read while you send, or send no more than 1,000 lines at a time. A refused line does not affect the others. " +
			"The last line of the answer says how the request ended; if it is missing or names a problem, send what has no answer again.",
		Responses: map[string]*huma.Response{
			"200": {
				Description: "An answer for each line, and one line at the end",
				Content:     map[string]*huma.MediaType{linesType: {Schema: schemaOf[task.BulkAnswer](r.api)}},
			},
		},
	}, func(ctx context.Context, in *bulkInput) (*huma.StreamResponse, error) {
		return r.submitBulk(ctx, in, line)
	})
}

func (r *routes) submitBulk(ctx context.Context, in *bulkInput, line *huma.Schema) (*huma.StreamResponse, error) {
	if r.bulks.Add(1) > maxBulks {
		r.bulks.Add(-1)
		return nil, Overloaded(fmt.Sprintf("the host accepts %d bulk submissions at a time", maxBulks), bulkRetry, nil)
	}
	by := auth.From(ctx).String()
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		defer r.bulks.Add(-1)
		req, w := humago.Unwrap(hctx)
		if _, err := acceptable(req.Header, []string{linesType}); err != nil {
			writeProblem(w, req, newProblem(http.StatusUnsupportedMediaType, CodeUnsupportedMediaType, err.Error()))
			return
		}
		s := &bulkStream{
			routes: r, schema: line, request: req, w: w, ctl: http.NewResponseController(w),
			key: in.IdempotencyKey, by: by, line: in.FirstLine,
		}
		s.run(hctx.Context())
	}}, nil
}

// bulkLine reads a line of a bulk submission, in the same way as the body of a single one.
func (r *routes) bulkLine(raw []byte, schema *huma.Schema) (s Submission, p *problem) {
	if p = checkLine(raw, r.wrapped); p != nil {
		return s, p
	}
	var generic any
	var in BulkLineRequest
	err := unmarshalGeneric(raw, &generic)
	if err == nil {
		path := huma.NewPathBuffer([]byte("body"), len("body"))
		var found huma.ValidateResult
		huma.Validate(r.api.OpenAPI().Components.Schemas, schema, path, huma.ModeWriteToServer, generic, &found)
		if len(found.Errors) > 0 {
			e := &huma.ErrorModel{Status: http.StatusUnprocessableEntity}
			for _, err := range found.Errors {
				e.Add(err)
			}
			return s, problemOfHuma(e)
		}
		err = unmarshalJSON(raw, &in)
	}
	if err != nil {
		return s, newProblem(http.StatusBadRequest, CodeMalformedRequest, "the line is not a submission: "+err.Error())
	}
	if s, p = r.submissionOf(&in.TaskRequest); p != nil {
		return s, p
	}
	s.IdempotencyKey = in.IdempotencyKey
	return s, nil
}

// bulkChunk is a number of lines that are submitted together.
type bulkChunk struct {
	answers     []task.BulkAnswer
	submissions []Submission
	at          []int // for each submission, its position among the answers
	bytes       int

	done     chan struct{} // closed when the fields below are set
	complete int           // how many of the answers are complete
	stopped  *problem      // why not all of them are
}

// submitChunk asks the backend for the tasks of a chunk.
func (r *routes) submitChunk(ctx context.Context, c *bulkChunk) {
	defer close(c.done)
	ctx, cancel := context.WithTimeout(ctx, bulkPatience)
	defer cancel()
	c.complete = len(c.answers)
	if len(c.submissions) == 0 {
		return
	}
	for i, o := range r.backend.Tasks.SubmitMany(ctx, c.submissions) {
		a := &c.answers[c.at[i]]
		if o.Err == nil {
			a.TaskUUID, a.Created = o.TaskUUID, o.Created
			continue
		}
		p := r.problem(ctx, "submit-tasks", o.Err)
		if p.Status == http.StatusServiceUnavailable {
			c.stopped, c.complete = p, c.at[i]
			return
		}
		a.Problem = &p.Problem
	}
}

// retryAfter is the Retry-After of a problem, in seconds; 0: none.
func retryAfter(p *problem) int {
	n, err := strconv.Atoi(p.header.Get("Retry-After"))
	if err != nil {
		return 0
	}
	return n
}
