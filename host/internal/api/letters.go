package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// LetterParams are the parameters that select dead letters.
type LetterParams struct {
	Kind      string `query:"kind" enum:"message,step" doc:"Only messages, or only steps."`
	Reason    string `query:"reason" maxLength:"100" doc:"Only of this reason, such as attempts_exhausted."`
	Queue     string `query:"queue" maxLength:"63" doc:"Only messages of this queue."`
	Namespace string `query:"namespace" maxLength:"63" doc:"Only steps of this namespace, and messages of its queue or that ask for it."`
	OlderThan string `query:"older_than" maxLength:"20" doc:"Only those older than a duration such as 24h."`
	Cursor    string `query:"cursor" maxLength:"200" doc:"next_cursor of the previous page."`
}

func (f *LetterParams) query(limit int) (LetterQuery, error) {
	q := LetterQuery{Kind: f.Kind, Reason: f.Reason, Queue: f.Queue, Namespace: f.Namespace, Limit: limit}
	if f.OlderThan != "" {
		d, err := time.ParseDuration(f.OlderThan)
		if err != nil || d < 0 {
			return q, Invalid(CodeValidationFailed, "the request has values that are not allowed",
				Issue{Location: "query.older_than", Detail: "expected a duration such as 30m or 24h"})
		}
		q.OlderThan = d
	}
	if f.Cursor == "" {
		return q, nil
	}
	var err error
	if q.Before, err = after("d", f.Cursor); err == nil && q.Before == 0 {
		err = badCursor()
	}
	return q, err
}

type listLettersInput struct {
	LetterParams
	Closed bool `query:"closed" doc:"Include closed ones."`
	Limit  int  `query:"limit" minimum:"1" maximum:"500" default:"50"`
}

type lettersOutput struct{ Body readmodel.DeadLetterPage }

type letterPath struct {
	ID int64 `path:"id" minimum:"1"`
}

type letterMoveInput struct {
	ID   int64 `path:"id" minimum:"1"`
	Body *operatorRequest
}

type letterBatchInput struct {
	LetterParams
	Limit int `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"How many letters this batch covers."`
	Body  *operatorRequest
}

type letterOutput struct{ Body readmodel.DeadLetter }

type letterBatchOutput struct{ Body readmodel.LetterBatch }

func (r *routes) letterRoutes() {
	register(r, huma.Operation{
		OperationID: "list-dead-letters", Method: http.MethodGet, Path: "/v1/dead-letters", Tags: []string{"dead letters"},
		Summary: "List what was set aside, newest first",
	}, r.listLetters)
	register(r, huma.Operation{
		OperationID: "show-dead-letter", Method: http.MethodGet, Path: "/v1/dead-letters/{id}", Tags: []string{"dead letters"},
		Summary: "Show a dead letter with its body",
	}, r.showLetter)
	register(r, huma.Operation{
		OperationID: "replay-dead-letter", Method: http.MethodPost, Path: "/v1/dead-letters/{id}/replay", Tags: []string{"dead letters"},
		Summary:     "Send a message again, or retry a failed step",
		Description: "A step starts a new generation, as when it is retried.",
	}, r.letterMove(Letters.Replay))
	register(r, huma.Operation{
		OperationID: "discard-dead-letter", Method: http.MethodPost, Path: "/v1/dead-letters/{id}/discard", Tags: []string{"dead letters"},
		Summary: "Close a dead letter; it stays on record",
	}, r.letterMove(Letters.Discard))
	register(r, huma.Operation{
		OperationID: "replay-dead-letters", Method: http.MethodPost, Path: "/v1/dead-letters/replay", Tags: []string{"dead letters"},
		Summary:     "Replay a batch of the open dead letters that a filter selects, newest first",
		Description: "Each is replayed separately; those that cannot be are named. Call again with next_cursor until there is none.",
	}, r.letterBatch(Letters.Replay))
	register(r, huma.Operation{
		OperationID: "discard-dead-letters", Method: http.MethodPost, Path: "/v1/dead-letters/discard", Tags: []string{"dead letters"},
		Summary: "Discard a batch of the open dead letters that a filter selects, newest first",
	}, r.letterBatch(Letters.Discard))
}

func (r *routes) listLetters(ctx context.Context, in *listLettersInput) (*lettersOutput, error) {
	q, err := in.query(in.Limit + 1)
	if err != nil {
		return nil, err
	}
	q.Closed = in.Closed
	letters, err := r.backend.Letters.ListLetters(ctx, q)
	if err != nil {
		return nil, err
	}
	items, more := trim(letters, in.Limit)
	out := &lettersOutput{Body: readmodel.DeadLetterPage{Items: items}}
	if more {
		out.Body.NextCursor = letterCursor(&items[len(items)-1])
	}
	return out, nil
}

func letterCursor(last *readmodel.DeadLetter) string {
	return encodeCursor("d", strconv.FormatInt(last.ID, 10))
}

func (r *routes) showLetter(ctx context.Context, in *letterPath) (*letterOutput, error) {
	letter, err := r.backend.Letters.Letter(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &letterOutput{Body: letter}, nil
}

type letterMove func(Letters, context.Context, int64, Operator) (readmodel.DeadLetter, error)

func (r *routes) letterMove(move letterMove) func(context.Context, *letterMoveInput) (*letterOutput, error) {
	return func(ctx context.Context, in *letterMoveInput) (*letterOutput, error) {
		letter, err := move(r.backend.Letters, ctx, in.ID, in.Body.operator(ctx))
		if err != nil {
			return nil, err
		}
		return &letterOutput{Body: letter}, nil
	}
}

// letterBatch makes the handler of an operation on many letters. A failure that concerns
// one letter does not stop the others, but one of the host or its database does.
func (r *routes) letterBatch(move letterMove) func(context.Context, *letterBatchInput) (*letterBatchOutput, error) {
	return func(ctx context.Context, in *letterBatchInput) (*letterBatchOutput, error) {
		q, err := in.query(in.Limit + 1)
		if err != nil {
			return nil, err
		}
		letters, err := r.backend.Letters.ListLetters(ctx, q)
		if err != nil {
			return nil, err
		}
		items, more := trim(letters, in.Limit)
		out := &letterBatchOutput{}
		for i := range items {
			switch _, err := move(r.backend.Letters, ctx, items[i].ID, in.Body.operator(ctx)); {
			case err == nil:
				out.Body.Done++
			case errors.Is(err, ErrConflict), errors.Is(err, ErrNotFound):
				out.Body.Failed = append(out.Body.Failed, readmodel.LetterFailure{ID: items[i].ID, Detail: err.Error()})
			default:
				return nil, err
			}
		}
		if more {
			out.Body.NextCursor = letterCursor(&items[len(items)-1])
		}
		return out, nil
	}
}
