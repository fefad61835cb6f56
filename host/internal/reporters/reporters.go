package reporters

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/host/internal/health"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	sdkhealth "github.com/tasker-systems/tasker-host/sdk/health"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

const (
	maxWaiting = 1000 // events for one reporter
	maxBatch   = 100  // events in one call
	retryMin   = time.Second
	retryMax   = time.Minute
)

// Host is what this package needs of the plugin host.
type Host interface {
	HealthServices() []pluginhost.HealthService
	Check(ctx context.Context, name string) (*pluginv1.CheckResponse, error)
	Report(ctx context.Context, r *pluginv1.ReportRequest) (*pluginv1.ReportResponse, error)
}

// Plugins are the plugins of kind health. Run delivers the events.
type Plugins struct {
	host Host
	name string // of this host, for events
	log  hclog.Logger
	sent *prometheus.CounterVec

	mu     sync.Mutex // guards the following
	queues map[string]*queue
	known  map[string][]string // the checks of each service, from its last answer
	life   context.Context     // nil: nothing is delivered
	loops  sync.WaitGroup
}

// queue holds the events that a reporter has not taken yet.
type queue struct {
	name    string
	waiting []*pluginv1.HealthEvent
	more    chan struct{} // signalled when events arrive
}

var _ health.Sink = (*Plugins)(nil)

// New connects the health of the named host with its plugins.
func New(host Host, name string, reg prometheus.Registerer, log hclog.Logger) *Plugins {
	p := &Plugins{
		host: host, name: name, log: log, queues: map[string]*queue{}, known: map[string][]string{},
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_health_reports_total", Help: "Events handed to reporters, by result.",
		}, []string{"result"}),
	}
	for _, result := range []string{"taken", "rejected", "failed", "dropped"} {
		p.sent.WithLabelValues(result)
	}
	reg.MustRegister(p.sent)
	return p
}

// Look asks all checkers concurrently. It gives up on those that do not answer in time
// before the look must end, so that the other answers are not lost.
func (p *Plugins) Look(ctx context.Context, _ health.View) []health.Named {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, end.Add(-time.Until(end)/4), pluginhost.ErrTimeout)
		defer cancel()
	}
	services := p.host.HealthServices()
	found := make([][]health.Named, len(services))
	var asked sync.WaitGroup
	for i, s := range services {
		if s.Checks {
			asked.Go(func() { found[i] = p.ask(ctx, s.Name) })
		}
	}
	asked.Wait()
	var all []health.Named
	for _, f := range found {
		all = append(all, f...)
	}
	return all
}

// ask asks one checker. Without a usable answer, everything that it reported last time is
// unknown.
func (p *Plugins) ask(ctx context.Context, name string) []health.Named {
	answer, err := p.host.Check(ctx, name)
	switch n := len(answer.GetResults()); {
	case err != nil:
		return p.unknown(name, err.Error())
	case answer.GetError() != "":
		return p.unknown(name, answer.GetError())
	case n == 0:
		return p.unknown(name, "the answer has no results")
	case n > sdkhealth.MaxChecks:
		return p.unknown(name, fmt.Sprintf("the answer has %d results: want at most %d", n, sdkhealth.MaxChecks))
	}
	var all []health.Named
	var names []string
	for _, r := range answer.GetResults() {
		c, err := wire.DecodeCheck(r)
		if err != nil {
			c = sdkhealth.Check{
				Name: clip(r.GetName(), sdkhealth.MaxNameBytes), Status: sdkhealth.Unknown, Message: clip(wire.Unusable+err.Error(), sdkhealth.MaxMessageBytes),
			}
		}
		one := name + "/" + c.Name
		names = append(names, one)
		all = append(all, health.Named{Name: one, Finding: health.Finding{Status: health.Status(c.Status), Message: c.Message}})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[name] = names
	return all
}

// unknown returns the findings for a service that gave no usable answer: one for each
// check it last reported, or one for the service itself.
func (p *Plugins) unknown(name, why string) []health.Named {
	p.mu.Lock()
	names := p.known[name]
	p.mu.Unlock()
	if len(names) == 0 {
		names = []string{name}
	}
	var all []health.Named
	for _, one := range names {
		all = append(all, health.Named{Name: one, Finding: health.Finding{Status: health.Unknown, Message: clip(why, sdkhealth.MaxMessageBytes)}})
	}
	return all
}

// clip bounds text from a plugin.
func clip(text string, most int) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most-len("…")], "") + "…"
	}
	return text
}

// severities maps severities to those of the plugin SDK.
var severities = map[health.Severity]sdkhealth.Severity{
	health.Info: sdkhealth.Info, health.Warning: sdkhealth.Warning, health.Critical: sdkhealth.Critical,
}

// Report queues events of checks for the reporters.
func (p *Plugins) Report(_ context.Context, events []health.Event) {
	all := make([]sdkhealth.Event, len(events))
	for i, e := range events {
		all[i] = sdkhealth.Event{
			Kind: sdkhealth.KindCheck, Severity: severities[e.Severity], Subject: e.Check,
			From: string(e.From), To: string(e.To), Time: e.At, Message: e.Message, State: string(e.State),
		}
	}
	p.Tell(all...)
}

// Tell queues events for the reporters. ID and Host are filled in.
func (p *Plugins) Tell(events ...sdkhealth.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life == nil {
		return
	}
	encoded := make([]*pluginv1.HealthEvent, len(events))
	for i, e := range events {
		e.ID, e.Host = uuid.NewString(), p.name
		encoded[i] = wire.EncodeEvent(e)
	}
	for _, s := range p.host.HealthServices() {
		if s.Reports {
			p.queue(s.Name).add(encoded, p.sent.WithLabelValues("dropped"))
		}
	}
}

// queue returns a reporter's queue, and creates it if needed. The caller holds mu.
func (p *Plugins) queue(name string) *queue {
	q := p.queues[name]
	if q == nil {
		q = &queue{name: name, more: make(chan struct{}, 1)}
		p.queues[name] = q
		life := p.life
		p.loops.Go(func() { p.carry(life, q) })
	}
	return q
}

// add appends events and drops the oldest beyond the limit.
func (q *queue) add(events []*pluginv1.HealthEvent, dropped prometheus.Counter) {
	q.waiting = append(q.waiting, events...)
	if n := len(q.waiting) - maxWaiting; n > 0 {
		dropped.Add(float64(n))
		q.waiting = append(q.waiting[:0:0], q.waiting[n:]...)
	}
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// Run delivers events until ctx ends, and then once more what is waiting, for as long as
// one call may take.
func (p *Plugins) Run(ctx context.Context) error {
	p.mu.Lock()
	p.life = ctx
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	p.life = nil
	p.mu.Unlock()
	p.loops.Wait()
	p.mu.Lock()
	clear(p.queues)
	p.mu.Unlock()
	return nil
}

// carry sends the events of one reporter as they arrive.
func (p *Plugins) carry(ctx context.Context, q *queue) {
	wait := retryMin
	for {
		batch := p.head(q)
		if len(batch) == 0 {
			select {
			case <-q.more:
				continue
			case <-ctx.Done():
				return
			}
		}
		// A call that has begun may finish: the plugin host bounds it.
		err := p.send(context.WithoutCancel(ctx), q, batch)
		if err == nil {
			wait = retryMin
			continue
		}
		p.log.Warn("a reporter did not take events; they are sent again", "reporter", q.name, "events", len(batch), "after", wait, "error", err)
		select {
		case <-time.After(wait):
			wait = min(2*wait, retryMax)
		case <-ctx.Done():
			return
		}
	}
}

func (p *Plugins) head(q *queue) []*pluginv1.HealthEvent {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*pluginv1.HealthEvent(nil), q.waiting[:min(len(q.waiting), maxBatch)]...)
}

// send delivers a batch. If there is no error, the batch has left the queue.
func (p *Plugins) send(ctx context.Context, q *queue, batch []*pluginv1.HealthEvent) error {
	answer, err := p.host.Report(ctx, &pluginv1.ReportRequest{Name: q.name, Events: batch})
	result := "taken"
	switch {
	case err == nil && answer.GetError() == "":
	case err == nil && answer.GetRejected():
		result = "rejected"
		p.log.Warn("a reporter rejects events; they are not sent again", "reporter", q.name, "events", len(batch), "error", clip(answer.GetError(), sdkhealth.MaxMessageBytes))
	default:
		p.sent.WithLabelValues("failed").Add(float64(len(batch)))
		if err == nil {
			err = errors.New(clip(answer.GetError(), sdkhealth.MaxMessageBytes))
		}
		return fmt.Errorf("report: %w", err)
	}
	p.sent.WithLabelValues(result).Add(float64(len(batch)))
	p.mu.Lock()
	defer p.mu.Unlock()
	// Events may have been dropped meanwhile: remove only what was sent.
	last := batch[len(batch)-1]
	for i, e := range q.waiting {
		if e == last {
			q.waiting = q.waiting[i+1:]
			break
		}
	}
	return nil
}
