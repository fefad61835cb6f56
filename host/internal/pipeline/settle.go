package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// settlement is an outcome on its way to the database.
type settlement struct {
	store.Settlement
	attempt *attempt // nil: an outside worker posted it, or the lease's reply was lost
	message int64    // the message it was posted in; 0: none
	bytes   int      // of its result, counted against the budget if it has an attempt
}

// size returns the approximate bytes that the outcome takes in a statement.
func (s settlement) size() int { return len(s.Result) + len(s.Metadata) + len(s.Error) }

// held returns the lease that the outcome ends.
func (s *settlement) held() store.Held { return store.Held{StepKey: s.StepKey, Lease: s.Lease} }

// settle takes the outcome of an attempt. It is called from the runner's goroutines and
// does not block.
func (e *Engine) settle(a *attempt, o pluginhost.Outcome) {
	if why := a.over.Load(); o.Kind == vocab.OutcomeReleased && why != nil && *why == pluginhost.ReasonStopping {
		o.Failure = &pluginhost.Failure{Code: *why, Message: o.Failure.Message} // it was reported as cancelled
	}
	s := e.settlementOf(a.StepKey, a.ID, o)
	s.attempt, s.bytes = a, s.size()
	e.budget.take(&a.steps.memory, s.bytes)
	traceOutcome(a, o)
	e.metrics.outcome(s.Outcome, o.Execution)
	e.outcomes.add(s)
}

// settlementOf turns an outcome into what can be recorded: a result that fails the JSON
// gate becomes a permanent failure.
func (e *Engine) settlementOf(key store.StepKey, lease vocab.UUID, o pluginhost.Outcome) settlement {
	s := settlement{Settlement: store.Settlement{
		StepKey: key, Lease: lease, Outcome: o.Kind, Generation: int64(o.Generation),
	}}
	if o.Kind == vocab.OutcomeSuccess {
		if fault := e.checkResult(&o); fault != nil {
			s.Outcome, s.Error = vocab.OutcomePermanent, failureOf(fault)
		} else {
			s.Result, s.Metadata = o.Result, o.Metadata
		}
	} else if o.Failure == nil {
		s.Error = failureOf(&pluginhost.Failure{Type: vocab.UnexpectedError, Message: "the plugin gave no reason"})
	} else {
		s.RetryAfter = o.Failure.RetryAfter
		if o.Kind == vocab.OutcomeReleased {
			s.Error = releaseOf(o.Failure)
			switch o.Failure.Code {
			case pluginhost.ReasonCrashed, pluginhost.ReasonNoPlugin:
				s.RetryAfter = crashPause
			case pluginhost.ReasonDraining, pluginhost.ReasonReturned:
				s.RetryAfter = drainPause
			}
		} else {
			s.Error = failureOf(o.Failure)
		}
	}
	return s
}

// checkResult is the JSON gate for results: the database stores what passes as it is.
func (e *Engine) checkResult(o *pluginhost.Outcome) *pluginhost.Failure {
	if len(o.Result) > 0 {
		if err := payload.Check(o.Result, e.live().Results); err != nil {
			return &pluginhost.Failure{Type: vocab.InvalidResult, Code: "RESULT_INVALID", Message: "result: " + err.Error()}
		}
	}
	if len(o.Metadata) > 0 {
		if err := payload.CheckObject(o.Metadata, e.live().Results); err != nil {
			return &pluginhost.Failure{Type: vocab.InvalidResult, Code: "METADATA_INVALID", Message: "metadata: " + err.Error()}
		}
	}
	return nil
}

// maxErrorText bounds the size of a handler's error text in the database.
const maxErrorText = 8 << 10

// failureJSON is the form in which a failure is stored in the database.
type failureJSON struct {
	Type       vocab.ErrorType `json:"type"`
	Code       string          `json:"code,omitempty"`
	Message    string          `json:"message"`
	Retryable  bool            `json:"retryable"`
	RetryAfter float64         `json:"retry_after_seconds,omitempty"`
	Context    json.RawMessage `json:"context,omitempty"`
}

func failureOf(f *pluginhost.Failure) json.RawMessage {
	j := failureJSON{
		Type: f.Type, Code: payload.Text(f.Code, 200), Message: payload.Text(f.Message, maxErrorText),
		Retryable:  f.Type == vocab.RetryableError || f.Type == vocab.UnexpectedError || f.Type == vocab.TimeoutError,
		RetryAfter: f.RetryAfter.Seconds(),
	}
	if len(f.Context) > 0 && payload.CheckObject(f.Context, payload.Limits{MaxBytes: maxErrorText, MaxDepth: 32}) == nil {
		j.Context = f.Context
	}
	raw, err := json.Marshal(j)
	if err != nil { // a struct of checked texts always marshals
		raw = json.RawMessage(`{"type":"UnexpectedError","message":"the failure could not be described","retryable":true}`)
	}
	return raw
}

// releaseOf describes why a step is given back. The attempt does not count if those who
// run the host ended it, or if the step never ran: however often a step is interrupted by
// swaps and shutdowns, or finds its plugin unavailable, it is run again. Where it would
// be given back over and over there is a pause, see settlementOf.
func releaseOf(f *pluginhost.Failure) json.RawMessage {
	excused := false
	switch f.Code {
	case pluginhost.ReasonReplaced, pluginhost.ReasonStopping, pluginhost.ReasonNoPlugin, pluginhost.ReasonDraining, neverRan, replyLost:
		excused = true
	}
	raw, err := json.Marshal(map[string]any{"message": payload.Text(f.Message, maxErrorText), "excused": excused})
	if err != nil { // a checked text always marshals
		raw = json.RawMessage(`{"message":"given back"}`)
	}
	return raw
}

// split divides a batch into successes and the rest: the two lock rows in different
// orders, and a transaction that did both could deadlock with another.
func split(batch []settlement) (successes, others []settlement) {
	failed := slices.IndexFunc(batch, func(s settlement) bool { return s.Outcome != vocab.OutcomeSuccess })
	if failed < 0 {
		return batch, nil
	}
	for _, s := range batch {
		if s.Outcome == vocab.OutcomeSuccess {
			successes = append(successes, s)
		} else {
			others = append(others, s)
		}
	}
	return successes, others
}

// record settles one batch and starts the steps it made ready.
func (e *Engine) record(batch []settlement) { inParts(batch, e.recordPart, e.giveUp) }

// inParts records a batch: in halves if a statement takes too long for it, and each
// outcome on its own if the database refuses one of them. A result that the database
// refuses is recorded as a permanent failure. send records a part, and lost is called for
// one that could not be recorded.
func inParts(batch []settlement, send func(part []settlement) error, lost func(part []settlement, err error)) {
	err := send(batch)
	class := store.Classify(err)
	switch {
	case err == nil:
	case errors.Is(err, errBatchTooLong):
		inParts(batch[:len(batch)/2], send, lost)
		inParts(batch[len(batch)/2:], send, lost)
	case (class == store.BadInput || class == store.Permanent) && len(batch) > 1:
		for i := range batch { // one of them is poison
			inParts(batch[i:i+1], send, lost)
		}
	case class == store.BadInput && batch[0].Outcome == vocab.OutcomeSuccess:
		b := batch[0]
		b.Outcome, b.Result, b.Metadata = vocab.OutcomePermanent, nil, nil
		b.Error = failureOf(&pluginhost.Failure{
			Type: vocab.InvalidResult, Code: "RESULT_REFUSED",
			Message: "the database refused the result: " + err.Error(),
		})
		inParts([]settlement{b}, send, lost)
	default:
		lost(batch, err)
	}
}

func (e *Engine) recordPart(batch []settlement) error {
	began := time.Now()
	g := e.reserve(children(batch)...)
	out, call, err := e.settleBatch(g, batch)
	if err != nil {
		e.capacity.taken(g, nil)
		return err
	}
	e.metrics.settled(len(batch), time.Since(began))
	e.conclude(batch, out)
	e.start(e.work, g, call, out.Leases)
	return nil
}

// crashPause is how long a step waits after its plugin crashed while running it. Later
// waits are longer, see tasker_settle_failures, so that a step that kills its plugin runs
// too rarely to open the breaker of its crash loop.
const crashPause = 250 * time.Millisecond

// outcomeRefused is the reason for giving back a step whose outcome the database refuses
// to record, and refusalPause how long the step waits then; later waits are longer, as
// after a crash.
const (
	outcomeRefused = "outcome_refused"
	refusalPause   = 25 * time.Millisecond
)

// drainPause is how long a step waits after a plugin has handed it back: it is sent to
// the same plugin as long as that one serves.
const drainPause = time.Second

// children returns, for each namespace, how many steps a batch may make ready and how
// many leases it ends.
func children(batch []settlement) []want {
	var wants []want
	at := -1 // the last one's namespace: most batches have only one
	for i := range batch {
		a := batch[i].attempt
		if a == nil {
			continue
		}
		if at < 0 || wants[at].namespace != a.plan.Namespace {
			at = slices.IndexFunc(wants, func(w want) bool { return w.namespace == a.plan.Namespace })
			if at < 0 {
				at = len(wants)
				wants = append(wants, want{namespace: a.plan.Namespace})
			}
		}
		wants[at].take += len(a.plan.Steps[a.Number].Children)
		wants[at].ending++
	}
	return wants
}

// settleBatch sends a batch until the database has answered, and returns the call that
// was answered, which start ends. Repeating the call is harmless: what an earlier one
// recorded is answered as already recorded. Leases that were granted in a lost reply are
// found by reconcile.
func (e *Engine) settleBatch(g grant, batch []settlement) (store.Settled, ticket, error) {
	slices.SortStableFunc(batch, func(a, b settlement) int { return store.CompareKeys(a.StepKey, b.StepKey) })
	send := make([]store.Settlement, len(batch))
	for i := range batch {
		send[i] = batch[i].Settlement
	}
	var call ticket
	var out store.Settled
	err := e.insistBatch(e.work, "settle", len(batch), func(ctx context.Context) (err error) {
		call = e.grants.begin()
		if out, err = e.store.Settle(ctx, g.forStore(e.HostID()), e.live().Policy, send); err != nil {
			e.grants.end(call)
		}
		return err
	})
	return out, call, err
}

// conclude releases what a batch settled and notifies those who wait for it.
func (e *Engine) conclude(batch []settlement, out store.Settled) {
	ended := make([]*attempt, 0, len(batch))
	for i := range batch {
		s := &batch[i]
		e.noteVerdict(s, out.Verdicts[i])
		if s.attempt != nil {
			ended = append(ended, s.attempt)
			e.held.remove(s.attempt)
			e.budget.give(&s.attempt.steps.memory, s.bytes)
		} else {
			e.held.drop(s.held())
		}
	}
	e.traceSettled(batch, out)
	e.capacity.settled(ended)
	e.noteSettled(out)
	if out.Enqueued > 0 {
		if slices.ContainsFunc(batch, func(s settlement) bool { return s.attempt == nil }) {
			e.wake() // only the database knows the namespace of a lease whose reply was lost
		} else {
			e.lookout.put(queuesOf(batch, func(s settlement) string { return s.attempt.plan.Namespace })...)
		}
	}
}

// noteVerdict notes the database's verdict on an outcome.
func (e *Engine) noteVerdict(s *settlement, verdict store.Verdict) {
	if verdict != store.Recorded {
		e.metrics.verdicts.WithLabelValues(string(verdict)).Inc()
		if verdict != store.AlreadyRecorded {
			e.log.Debug("outcome refused", "step", s.UUID(), "verdict", verdict, "outcome", s.Outcome)
		}
		return
	}
	e.metrics.recorded.Inc()
	if s.Outcome == vocab.OutcomeSuccess {
		e.inputs.keepResult(s.StepKey, s.Result)
	}
}

// noteSettled reports the tasks that a batch has finished to those who wait for them, and
// notes the retries it has caused.
func (e *Engine) noteSettled(out store.Settled) {
	for _, f := range out.Finished {
		e.inputs.forget(f.UUID)
		e.metrics.finished.WithLabelValues(string(f.State)).Inc()
		e.hub.finished(f.UUID, f.State)
	}
	for _, due := range out.Due {
		e.due.at(due)
	}
	if len(out.Due) > 0 {
		signal(e.lookout.hurry)
	}
}

// giveUp drops outcomes that could not be recorded. If the engine was stopped, the leases
// end with the host, and the steps run again elsewhere. If the database has refused the
// call, the steps are given back and the attempts counted, so that steps which it always
// refuses end too.
func (e *Engine) giveUp(batch []settlement, err error) {
	e.log.Error("outcomes not recorded; their steps will run again", "steps", len(batch), "error", err)
	ended := make([]*attempt, 0, len(batch))
	for i := range batch {
		if a := batch[i].attempt; a != nil {
			if e.work.Err() == nil {
				e.giveBack(batch[i].held(), &pluginhost.Failure{Code: outcomeRefused, Message: "its outcome could not be recorded: " + err.Error()}, refusalPause)
			}
			ended = append(ended, a)
			e.held.remove(a)
			e.budget.give(&a.steps.memory, batch[i].bytes)
			traceLost(a, err)
		} else {
			e.held.drop(batch[i].held())
		}
	}
	e.capacity.settled(ended)
	e.lost.Store(true)
}
