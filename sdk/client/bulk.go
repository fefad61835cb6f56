package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/task"
)

// Limits of a bulk submission on the client's side.
const (
	maxLineBytes    = 64 << 20         // of a line; the host's own limit is lower
	defaultPatience = time.Minute      // without an answer, before giving up
	answerLimit     = 45 * time.Second // the host answers or gives up sooner
)

// BulkOptions configures a bulk submission. The zero value is ready to use.
type BulkOptions struct {
	// IdempotencyKey makes it harmless to submit again: each line without a key of its own gets
	// one derived from this key and the line's number. A call with the key of an earlier call
	// and the same lines continues where that one was cut off. It has at most 200 characters of
	// printable ASCII without spaces. Empty means a random key, which the result reports.
	IdempotencyKey string
	// Answered, if not nil, is called with the answer to each line, in the order of the lines.
	// The line is as it was sent and must not be kept. It is nil if it was not sent because its
	// context is not JSON.
	Answered func(a task.BulkAnswer, line []byte)
	// Waiting, if not nil, is called with the reason before each pause after which unanswered
	// lines are sent again.
	Waiting func(err error, pause time.Duration)
	// Patience is how long the host may be away or overloaded, without a single answer, before
	// the call gives up; 0 means a minute.
	Patience time.Duration
}

// BulkResult summarizes a bulk submission.
type BulkResult struct {
	IdempotencyKey string `json:"idempotency_key"`
	Created        int64  `json:"created"`  // lines that created a task
	Existing       int64  `json:"existing"` // lines whose task already existed
	Refused        int64  `json:"refused"`
}

// SubmitAll submits any number of tasks in one stream, holding only a bounded part of them in
// memory. A task that is refused, or whose context is not JSON, does not affect the others;
// o.Answered gets its answer. SubmitAll waits out lost connections and overloaded hosts and
// sends unanswered lines again, which the idempotency keys make harmless. The error says why
// some tasks have no answer; the result counts those that have one.
func (c *Client) SubmitAll(ctx context.Context, submissions iter.Seq[Submission], o BulkOptions) (BulkResult, error) {
	return c.submitBulk(ctx, o, func(emit func(line bulkLine) bool) error {
		for s := range submissions {
			if !emit(lineOf(s)) {
				return nil
			}
		}
		return nil
	})
}

// lineOf writes a submission as a line. Only its context can be invalid JSON.
func lineOf(s Submission) bulkLine {
	data, err := encode(struct {
		Submission
		IdempotencyKey string `json:"idempotency_key,omitempty"`
	}{s, s.IdempotencyKey})
	if err == nil {
		return bulkLine{data: data}
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		err = syntax // without the names of Go types
	}
	const code = "malformed_request"
	return bulkLine{refused: &task.Problem{
		Type: "urn:tasker:problem:" + code, Title: "Malformed request", Status: http.StatusBadRequest, Code: code,
		Detail: "the submission was not sent: its context is not JSON",
		Issues: []task.Issue{{Pointer: "/context", Detail: err.Error()}},
	}}
}

// SubmitLines is [Client.SubmitAll] for lines of JSON. Each line is a submission as the API
// takes it, with its key as "idempotency_key". Lines are numbered from 1; empty lines are
// counted but skipped. SubmitLines does not wait for a read of in that is still blocked when
// the call ends.
func (c *Client) SubmitLines(ctx context.Context, in io.Reader, o BulkOptions) (BulkResult, error) {
	return c.submitBulk(ctx, o, func(emit func(line bulkLine) bool) error {
		lines := bufio.NewReaderSize(in, 64<<10)
		for {
			line, err := lines.ReadSlice('\n')
			whole := bytes.Clone(line)
			for errors.Is(err, bufio.ErrBufferFull) {
				line, err = lines.ReadSlice('\n')
				if whole = append(whole, line...); len(whole) > maxLineBytes {
					return fmt.Errorf("a line is longer than %d bytes", maxLineBytes)
				}
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read the submissions: %w", err)
			}
			if len(whole) > 0 && !emit(bulkLine{data: append(bytes.TrimRight(whole, "\r\n"), '\n')}) || err != nil {
				return nil
			}
		}
	})
}

// submitBulk sends what source emits. The source runs in a goroutine of its own,
// which ends soon after the call unless it waits for input.
func (c *Client) submitBulk(ctx context.Context, o BulkOptions, source func(emit func(line bulkLine) bool) error) (BulkResult, error) {
	if o.IdempotencyKey == "" {
		o.IdempotencyKey = rand.Text()
	}
	if o.Patience <= 0 {
		o.Patience = defaultPatience
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := &bulk{
		client: c, options: o, result: BulkResult{IdempotencyKey: o.IdempotencyKey},
		source: make(chan bulkLine), window: newWindow(),
	}
	go func() {
		defer close(b.source)
		b.sourceErr = source(func(line bulkLine) bool {
			select {
			case b.source <- line:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}()
	err := b.run(ctx)
	return b.result, err
}

// bulk is one bulk submission. Its connections follow each other; only the
// goroutine that sends on one and the one that reads its answers run at once, and
// share the window.
type bulk struct {
	client    *Client
	options   BulkOptions
	result    BulkResult
	source    chan bulkLine
	sourceErr error // set before source is closed
	window    *window
	answered  bool // on the current connection
}

func (b *bulk) run(ctx context.Context) error {
	redial, awaySince, reached := firstRedial, time.Now(), false
	for {
		if b.window.len() == 0 {
			if !b.more(ctx) {
				break
			}
			awaySince = time.Now() // the call was waiting for the source
		}
		b.answered = false
		met, err := b.connect(ctx)
		reached = reached || met
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if b.answered || err == nil {
			redial, awaySince = firstRedial, time.Now()
		}
		if err == nil {
			continue
		}
		if !reached || !bulkPassing(err) || time.Since(awaySince) > b.options.Patience {
			return err
		}
		wait := pauseFor(redial, err)
		if b.options.Waiting != nil {
			b.options.Waiting(err, wait)
		}
		if !pause(ctx, wait) {
			return context.Cause(ctx)
		}
		redial = min(redial*2, slowestRedial)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return b.sourceErr
}

// more waits until there is something to send, and reports whether there is.
func (b *bulk) more(ctx context.Context) bool {
	select {
	case line, ok := <-b.source:
		if ok {
			b.window.push(line)
		}
		return ok
	case <-ctx.Done():
		return false
	}
}

// bulkPassing reports whether it makes sense to continue after err.
func bulkPassing(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.passing() || e.Status == http.StatusRequestTimeout
	}
	return errors.Is(err, ErrUnreachable)
}

// connect sends the unanswered lines, and then what the source has, over one connection.
// reached reports whether the host has answered at all.
func (b *bulk) connect(ctx context.Context) (reached bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(answerLimit, func() {
		cancel(fmt.Errorf("it did not answer for %s", answerLimit))
	})
	defer silence.Stop()

	body, send := io.Pipe()
	sent := make(chan struct{})
	first := b.window.rewind()
	go func() {
		defer close(sent)
		_ = send.CloseWithError(b.send(ctx, send))
	}()
	defer func() {
		cancel(nil)
		_ = body.Close()
		<-sent
	}()
	resp, err := b.client.send(ctx, Request{
		Method: http.MethodPost, Path: "/v1/tasks/bulk", Query: map[string][]string{"first_line": {fmt.Sprint(first)}},
		Header: http.Header{"Idempotency-Key": {b.options.IdempotencyKey}}, ContentType: "application/x-ndjson",
	}, body)
	if err != nil {
		return !isNobody(err), err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		data, _ := io.ReadAll(io.LimitReader(resp.Body, maxEventBytes))
		return true, errorOf(resp, data)
	}
	for answers := json.NewDecoder(resp.Body); ; {
		var a task.BulkAnswer
		if err := answers.Decode(&a); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return true, fmt.Errorf("%w: its answer was cut off: %w", ErrUnreachable, err)
		}
		silence.Reset(answerLimit)
		if a.End != nil {
			return true, b.ended(a.End)
		}
		if err := b.take(a); err != nil {
			return true, err
		}
	}
}

// take records the host's answer to a line, and the lines before it that were refused here.
func (b *bulk) take(a task.BulkAnswer) error {
	refused, line, ok := b.window.pop(a.Line)
	if !ok {
		return fmt.Errorf("the host answered line %d, which it was not sent", a.Line)
	}
	b.answered = true
	b.countAll(refused)
	b.count(a, line)
	return nil
}

func (b *bulk) countAll(refused []task.BulkAnswer) {
	for _, a := range refused {
		b.count(a, nil)
	}
}

// count counts the answer to a line, and passes it on.
func (b *bulk) count(a task.BulkAnswer, line []byte) {
	switch {
	case a.Problem != nil:
		b.result.Refused++
	case a.Created:
		b.result.Created++
	default:
		b.result.Existing++
	}
	if b.options.Answered != nil {
		b.options.Answered(a, line)
	}
}

// ended reads the end of the host's answer.
func (b *bulk) ended(e *task.BulkEnd) error {
	if e.Problem != nil {
		return &Error{Problem: *e.Problem, RetryAfter: time.Duration(e.RetryAfterSeconds) * time.Second}
	}
	refused, ok := b.window.settle()
	if !ok {
		return fmt.Errorf("%w: it did not answer all lines", ErrUnreachable)
	}
	b.countAll(refused)
	return nil
}
