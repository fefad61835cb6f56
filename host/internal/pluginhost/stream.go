package pluginhost

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/rollout"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

const (
	// A plugin enforces timeouts itself; the host waits this much longer before it does.
	// A cancelled step has the same time to come back.
	callGrace = 2 * time.Second
	// How often deadlines are checked.
	deadlineTick = 100 * time.Millisecond
	// A process is replaced when this many of its calls hang, or a quarter of
	// its window if that is less.
	maxHung = 8
	// How long a plugin may hand back calls because it is ending. One built with our SDK
	// ends within a quarter of that.
	returnsFor = time.Minute
)

// stream carries the calls of one process. Three goroutines serve it: one sends, one
// receives, one watches deadlines. All end with the stream's context.
//
// Everything that is waiting when the sender gets to it goes out in one message: many
// steps under load, and a single one at once otherwise.
type stream struct {
	generation uint64
	rpc        grpc.BidiStreamingClient[pluginv1.WorkRequest, pluginv1.WorkResponse]
	cancel     context.CancelFunc
	metrics    *pluginMetrics
	record     *rollout.Record
	finished   func(n int) // n calls have ended; called before their Done
	wake       chan struct{}
	hanging    chan struct{} // signalled when too many calls hang
	onBreak    func(error) string
	broken     chan struct{} // closed when nothing can be received any more and all calls have ended
	obituary   string        // what onBreak returned; readable once broken is closed
	goroutines sync.WaitGroup
	returns    time.Time // when the plugin first handed back a call without being asked; used only by the receiver

	mu     sync.Mutex // guards the fields below
	calls  calls
	most   int      // the window never grows beyond this
	closed *Failure // set by end: no more calls are taken
}

// openStream opens the stream to a generation's process. The stream lives until end. If
// it breaks, onBreak is called with the reason, and the calls that have not ended are
// released with what it returns.
func openStream(g *generation, m *pluginMetrics, onBreak func(error) string) (*stream, error) {
	ctx, cancel := context.WithCancel(context.Background())
	rpc, err := g.proc.Handler.Work(ctx)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open the work stream: %w", err)
	}
	s := &stream{
		generation: g.number, rpc: rpc, cancel: cancel, metrics: m, record: g.recent, finished: g.release, onBreak: onBreak,
		wake: make(chan struct{}, 1), hanging: make(chan struct{}, 1), broken: make(chan struct{}),
		calls: calls{window: g.window}, most: g.window,
	}
	s.goroutines.Go(s.send)
	s.goroutines.Go(s.receive)
	s.goroutines.Go(s.watch)
	return s, nil
}

// dispatch accepts a call. It does not block.
func (s *stream) dispatch(call Call) {
	size := stepSize(call.Step)
	if size > wire.MaxMessageBytes-1024 {
		s.finish(call, Outcome{Kind: vocab.OutcomePermanent, Generation: s.generation, Failure: &Failure{
			Type: vocab.ValidationError, Code: "INPUT_TOO_LARGE",
			Message: fmt.Sprintf("the step and its inputs have %d bytes, more than the %d a plugin takes; store large results elsewhere and return references", size, wire.MaxMessageBytes),
		}})
		return
	}
	s.mu.Lock()
	if closed := s.closed; closed != nil {
		s.mu.Unlock()
		s.finish(call, released(unsent(closed.Code), closed.Message, s.generation))
		return
	}
	s.calls.add(call, size)
	s.mu.Unlock()
	signal(s.wake)
}

// stepSize returns the approximate size of a step on the wire, never less than the actual
// size.
func stepSize(step *pluginv1.Step) int {
	const frame = 1024 // identifiers and names: at most a hundred bytes each
	n := frame + len(step.GetContext()) + len(step.GetConfig())
	for _, d := range step.GetDependencies() {
		n += 32 + len(d.GetStepName()) + len(d.GetResult())
	}
	for k, v := range step.GetTrace() {
		n += 16 + len(k) + len(v)
	}
	return n
}

func (s *stream) send() {
	done := s.rpc.Context().Done()
	for {
		select {
		case <-s.wake:
			runtime.Gosched() // let the caller finish its batch
		case <-done:
			return
		}
		for request := s.next(); request != nil; request = s.next() {
			if err := s.rpc.Send(request); err != nil {
				return // receive gets the reason
			}
		}
	}
}

func (s *stream) next() *pluginv1.WorkRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls.batch(time.Now(), callGrace)
}

func (s *stream) receive() {
	defer close(s.broken)
	var settled []answer // reused
	for {
		response, err := s.rpc.Recv()
		if err != nil {
			s.breaks(err)
			return
		}
		if reports := response.GetProgress(); len(reports) > 0 {
			s.report(reports)
		}
		settled = s.settle(response, settled[:0])
		if len(settled) > 0 {
			s.conclude(settled)
		}
		clear(settled)
	}
}

// report tells the callers how far their steps are.
func (s *stream) report(reports []*pluginv1.Progress) {
	for _, r := range reports {
		s.mu.Lock()
		tell := s.calls.progress(r.GetCallId())
		s.mu.Unlock()
		if tell != nil {
			tell(Progress{Percent: int(min(r.GetPercent(), 100)), Note: clip(r.GetNote(), wire.MaxNoteBytes)})
		}
	}
}

// answer is an outcome and the call it belongs to.
type answer struct {
	call      Call
	cancelled cancellation
	outcome   *pluginv1.Outcome
}

func (s *stream) settle(response *pluginv1.WorkResponse, into []answer) []answer {
	late := 0
	s.mu.Lock()
	for _, o := range response.GetOutcomes() {
		p, ok := s.calls.settle(o.GetCallId())
		if !ok || p.hung {
			late++
			continue
		}
		into = append(into, answer{p.call, p.cancelled, o})
	}
	if n := int(response.GetMaxInFlight()); n > 0 && s.closed == nil {
		s.calls.window = min(n, s.most)
	}
	more := s.calls.waiting() > 0
	s.mu.Unlock()
	if more {
		signal(s.wake)
	}
	if late > 0 {
		s.metrics.ignored.Add(float64(late))
	}
	return into
}

// conclude reports answers to their callers.
func (s *stream) conclude(answers []answer) {
	s.finished(len(answers))
	var counts outcomeCounts
	now := time.Now()
	for i := range answers {
		a := &answers[i]
		outcome := outcomeOf(a.outcome, a.cancelled, s.generation)
		if outcome.Kind == vocab.OutcomeReleased && outcome.Failure.Code == ReasonDraining && !s.drains(now) {
			outcome.Failure.Code = ReasonReturned
		}
		counts.add(outcome.Kind)
		s.metrics.seconds.Observe(outcome.Execution.Seconds())
		if outcome.Kind != vocab.OutcomeReleased {
			s.record.Add(a.call.Handler, now, outcome.Kind != vocab.OutcomeSuccess, outcome.Execution)
		}
		a.call.Done(outcome)
	}
	s.metrics.count(&counts)
}

// drains reports whether a plugin that hands back a call may be about to end, as after a
// SIGTERM. A plugin that keeps doing so for longer than its end may take does not count
// as draining.
func (s *stream) drains(now time.Time) bool {
	if s.returns.IsZero() {
		s.returns = now
	}
	return now.Sub(s.returns) < returnsFor
}

// finish reports one outcome that the host made itself.
func (s *stream) finish(call Call, outcome Outcome) {
	s.finished(1)
	var counts outcomeCounts
	counts.add(outcome.Kind)
	s.metrics.count(&counts)
	call.Done(outcome)
}

// watch gives up calls whose deadline has passed.
func (s *stream) watch() {
	tick := time.NewTicker(deadlineTick)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.expire(now)
		case <-s.rpc.Context().Done():
			return
		}
	}
}

func (s *stream) expire(now time.Time) {
	s.mu.Lock()
	expired := s.calls.expire(now)
	hung, window := s.calls.hung, s.calls.window
	s.mu.Unlock()
	if hung >= max(1, min(maxHung, window/4)) { // also after the window has shrunk
		signal(s.hanging)
	}
	if len(expired) == 0 {
		return
	}
	signal(s.wake) // send the cancels
	for _, p := range expired {
		if p.cancelled.code != "" {
			s.finish(p.call, released(p.cancelled.code, p.cancelled.reason, s.generation))
			continue
		}
		s.record.AddBroken(p.call.Handler, now)
		timeout := time.Duration(p.call.Step.GetTimeoutMs()) * time.Millisecond
		s.finish(p.call, Outcome{
			Kind: vocab.OutcomeRetryable, Execution: timeout + callGrace, Generation: s.generation,
			Failure: &Failure{
				Type: vocab.TimeoutError, Code: "HANDLER_HANGS",
				Message: fmt.Sprintf("the step's timeout of %s passed and the handler did not end within %s after that", timeout, callGrace),
			},
		})
	}
}

// cancelStep ends the calls of a step.
func (s *stream) cancelStep(step, reason string) {
	s.mu.Lock()
	waiting := s.calls.cancel(step, reason, time.Now().Add(callGrace))
	told := len(s.calls.cancels) > 0
	s.mu.Unlock()
	if told {
		signal(s.wake)
	}
	for _, call := range waiting {
		s.finish(call, released(ReasonCancelled, reason, s.generation))
	}
}

// reclaim takes back the calls that were not sent.
func (s *stream) reclaim() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls.reclaim()
}

// cancelAll ends all calls: they are released with the code, unless a success
// comes soon.
func (s *stream) cancelAll(code, message string) {
	s.mu.Lock()
	s.calls.cancelAll(code, message, time.Now().Add(callGrace))
	s.mu.Unlock()
	signal(s.wake)
}

// room returns how many more steps could run at once now.
func (s *stream) room() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, s.calls.window-s.calls.taken()-s.calls.waiting())
}

// breaks ends the calls of a stream that broke on its own.
func (s *stream) breaks(err error) {
	s.mu.Lock()
	wanted := s.closed != nil
	s.mu.Unlock()
	if !wanted {
		s.obituary = s.onBreak(err)
		s.abandon(ReasonCrashed, s.obituary)
	}
}

// end closes the stream: calls that have not ended are released with the reason. It
// returns when the stream's goroutines have ended; later calls do nothing.
func (s *stream) end(reason, message string) {
	s.abandon(reason, message)
	s.cancel()
	s.goroutines.Wait()
}

// abandon takes no more calls and releases those that have not ended.
func (s *stream) abandon(reason, message string) {
	var waiting, left []Call
	s.mu.Lock()
	if s.closed == nil {
		s.closed = &Failure{Code: reason, Message: message}
		waiting, left = s.calls.reclaim(), s.calls.abandon()
	}
	s.mu.Unlock()
	for _, call := range waiting {
		s.finish(call, released(unsent(reason), message, s.generation))
	}
	for _, call := range left {
		s.finish(call, released(reason, message, s.generation))
	}
}

// unsent returns the reason for releasing a call that the process never saw, and which
// therefore cannot have killed it.
func unsent(reason string) string {
	if reason == ReasonCrashed {
		return ReasonNoPlugin
	}
	return reason
}

// signal makes a level-triggered channel ready.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
