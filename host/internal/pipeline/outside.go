package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// stepResult is a message of the result queue: what a worker that polls a namespace's
// queue itself reports about a step it ran.
type stepResult struct {
	StepUUID string          `json:"step_uuid"`
	TaskUUID string          `json:"task_uuid"`
	Status   string          `json:"status"`
	Results  json.RawMessage `json:"results"` // a JSON value, or one encoded as a string
	Error    *struct {
		Message   string          `json:"message"`
		Type      string          `json:"error_type"`
		Code      string          `json:"error_code"`
		Retryable bool            `json:"retryable"`
		Context   json.RawMessage `json:"context"`
	} `json:"error"`
	// LeaseID is the lease under which a worker ran the step. A worker that does not
	// claim steps omits it: its result counts if the step is still enqueued.
	LeaseID       string `json:"lease_id"`
	Orchestration *struct {
		Headers map[string]string `json:"headers"`
		Hint    *struct {
			Seconds float64 `json:"delay_seconds"`
		} `json:"backoff_hint"`
	} `json:"orchestration_metadata"`
	Metadata json.RawMessage `json:"metadata"`
}

// handleResults records what outside workers have posted. A message is removed in the
// transaction that judges its result; if it comes too late, or names something that does
// not exist, it is set aside.
func (b *inbox) handleResults(messages []pgmq.Message) {
	posted := make([]settlement, 0, len(messages))
	for _, m := range messages {
		s, reason, err := b.parseResult(m)
		if err != nil {
			b.setAside(m.ID, reason, err.Error())
			continue
		}
		posted = append(posted, s)
	}
	successes, others := split(posted)
	for _, batch := range [][]settlement{successes, others} {
		for len(batch) > 0 {
			n, _ := fitting(batch, settlement.size)
			inParts(batch[:n], b.recordPart, b.leave)
			batch = batch[n:]
		}
	}
}

// recordPart records results and removes their messages.
func (b *inbox) recordPart(batch []settlement) error {
	e := b.engine
	began := time.Now()
	slices.SortStableFunc(batch, func(a, b settlement) int { return store.CompareKeys(a.StepKey, b.StepKey) })
	send := make([]store.Posted, len(batch))
	for i := range batch {
		send[i] = store.Posted{Settlement: batch[i].Settlement, Message: batch[i].message}
	}
	var out store.Settled
	err := e.insistBatch(e.work, "settle posted results", len(batch), func(ctx context.Context) (err error) {
		out, err = e.store.SettlePosted(ctx, e.HostID(), b.queue, e.live().Policy, send)
		return err
	})
	if err != nil {
		return err
	}
	e.metrics.settled(len(batch), time.Since(began))
	for i := range batch {
		s := &batch[i]
		e.noteVerdict(s, out.Verdicts[i])
		switch out.Verdicts[i] {
		case store.UnknownStep:
			b.noteSetAside(s.message, "unknown_step", "no step has the UUID "+s.UUID().String())
		case store.StaleLease:
			b.noteSetAside(s.message, "stale_result", "step "+s.UUID().String()+" is not (or no longer) run under this lease")
		}
		b.done(s.message)
	}
	e.noteSettled(out)
	if out.Enqueued > 0 {
		e.wake() // only the database knows the namespace
	}
	return nil
}

// leave lets go of results that could not be recorded: their messages come back, to this
// host or another.
func (b *inbox) leave(batch []settlement, err error) {
	b.engine.log.Warn("results not recorded; their messages will be read again", "queue", b.queue, "results", len(batch), "error", err)
	for i := range batch {
		b.done(batch[i].message)
	}
}

// parseResult checks a message. It returns a reason with every error.
func (b *inbox) parseResult(m pgmq.Message) (settlement, string, error) {
	none := settlement{}
	body, ok := asObject(m.Body)
	if !ok {
		return none, "not_an_object", errors.New("a step result is a JSON object with step_uuid, task_uuid and status")
	}
	var r stepResult
	if err := json.Unmarshal(body, &r); err != nil {
		return none, "malformed", err
	}
	step, err := vocab.ParseUUID(r.StepUUID)
	if err != nil {
		return none, "malformed", fmt.Errorf("step_uuid: %w", err)
	}
	named, err := vocab.ParseUUID(r.TaskUUID)
	if err != nil {
		return none, "malformed", fmt.Errorf("task_uuid: %w", err)
	}
	task, number, ok := vocab.SplitStepID(step)
	if !ok || task != named {
		return none, "foreign_step", fmt.Errorf("step %s is not a step of task %s", step, named)
	}
	var lease vocab.UUID
	if r.LeaseID != "" {
		if lease, err = vocab.ParseUUID(r.LeaseID); err != nil {
			return none, "malformed", fmt.Errorf("lease_id: %w", err)
		}
	}
	o, err := r.outcome()
	if err != nil {
		return none, "malformed", err
	}
	out := b.engine.settlementOf(store.StepKey{Task: task, Number: int32(number)}, lease, o) // 20 bits
	out.message = m.ID
	return out, "", nil
}

// outcome translates the reference's status words.
func (r *stepResult) outcome() (pluginhost.Outcome, error) {
	failed := func(kind vocab.Outcome, typ vocab.ErrorType, message string) pluginhost.Outcome {
		f := &pluginhost.Failure{Type: typ, Message: message, RetryAfter: r.retryAfter(time.Now())}
		if r.Error != nil {
			f.Message, f.Code, f.Context = r.Error.Message, r.Error.Code, r.Error.Context
			if r.Error.Type != "" {
				f.Type = vocab.ErrorType(r.Error.Type)
			}
		}
		return pluginhost.Outcome{Kind: kind, Failure: f}
	}
	switch strings.ToLower(r.Status) {
	case "success":
		return pluginhost.Outcome{Kind: vocab.OutcomeSuccess, Result: unwrapText(r.Results), Metadata: unlessNull(r.Metadata)}, nil
	case "skipped":
		return pluginhost.Outcome{Kind: vocab.OutcomeSuccess, Metadata: json.RawMessage(`{"skipped":true}`)}, nil
	case "failed":
		if r.Error != nil && r.Error.Retryable {
			return failed(vocab.OutcomeRetryable, vocab.RetryableError, "the worker reported a failure"), nil
		}
		return failed(vocab.OutcomePermanent, vocab.PermanentError, "the worker reported a failure"), nil
	case "timeout":
		return failed(vocab.OutcomeRetryable, vocab.TimeoutError, "the worker reported a timeout"), nil
	case "cancelled":
		return failed(vocab.OutcomePermanent, vocab.PermanentError, "the worker cancelled the step"), nil
	default:
		return pluginhost.Outcome{}, fmt.Errorf("status %.20q is not Success, Failed, Skipped, Timeout or Cancelled", r.Status)
	}
}

// unlessNull treats a null like an omitted value.
func unlessNull(raw json.RawMessage) json.RawMessage {
	if string(raw) == "null" {
		return nil
	}
	return raw
}

// unwrapText returns the JSON inside a string: the reference's workers post their results
// that way. A string that contains no JSON is itself the result.
func unwrapText(raw json.RawMessage) json.RawMessage {
	var inner string
	if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &inner) == nil && json.Valid([]byte(inner)) {
		return json.RawMessage(inner)
	}
	return raw
}

// retryAfter returns the wait a worker asked for: its hint, or the Retry-After header it
// received, as seconds or a date; zero if none.
func (r *stepResult) retryAfter(now time.Time) time.Duration {
	if r.Orchestration == nil {
		return 0
	}
	if h := r.Orchestration.Hint; h != nil && h.Seconds > 0 && h.Seconds < 1e6 {
		return time.Duration(h.Seconds * float64(time.Second))
	}
	for name, value := range r.Orchestration.Headers {
		if !strings.EqualFold(name, "Retry-After") {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 20); err == nil {
			return time.Duration(n) * time.Second
		}
		for _, layout := range []string{time.RFC1123, time.RFC1123Z, time.RFC850, time.ANSIC} {
			if at, err := time.Parse(layout, strings.TrimSpace(value)); err == nil {
				return max(at.Sub(now), 0)
			}
		}
	}
	return 0
}
