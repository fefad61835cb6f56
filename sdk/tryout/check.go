package tryout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// Config describes the plugin to check.
type Config struct {
	// Options is what its table in plugins.toml would hold, a JSON object; empty:
	// it must work with none.
	Options json.RawMessage
	// Examples are steps that must succeed.
	Examples []Example
	// Report makes the reporters get an event, which may reach people.
	Report bool
	// Schema checks a schema of options as a host does; nil: it is not checked.
	Schema func(schema string) error
	// Patience is how long one call may take, and a start at least; default 10s.
	// Decisions are given a tenth of it, or a second.
	Patience time.Duration
}

// Example is a step with which a handler must succeed.
type Example struct {
	Handler string
	Step    Step
}

// Result is the outcome of one check.
type Result struct {
	Name    string        `json:"name"`
	Problem string        `json:"problem,omitempty"` // empty: the contract is kept
	Note    string        `json:"note,omitempty"`    // what was not checked, and why
	Took    time.Duration `json:"took_ns"`
}

// errSkipped wraps the reason for not making a check when that reason is no fault
// of the plugin.
var errSkipped = errors.New("not checked")

func skipped(why string) error { return fmt.Errorf("%w: %s", errSkipped, why) }

// Check reports whether the plugin keeps the contract with its host. It calls
// show with each result as soon as it is known, and returns all of them. If the
// plugin exits during a check, Check restarts it for the next one.
func Check(ctx context.Context, start Start, cfg Config, show func(Result)) []Result {
	if cfg.Patience <= 0 {
		cfg.Patience = 10 * time.Second
	}
	s := &suite{start: start, cfg: cfg, show: show}
	defer s.drop()
	s.check(ctx, "start", s.begins)
	if s.failed() {
		return s.results
	}
	s.check(ctx, "describe", s.describe)
	if s.description == nil {
		return s.results
	}
	s.check(ctx, "refuses work before configure", s.unconfigured)
	s.check(ctx, "refuses unknown options", s.unknownOption)
	s.check(ctx, "configure", s.configure)
	if s.failed() {
		return s.results // nothing else can work
	}
	s.check(ctx, "is configured once", s.configuredTwice)
	s.check(ctx, "health", s.health)
	s.check(ctx, "self-test", s.selfTest)
	s.handlers(ctx)
	s.scalers(ctx)
	s.watchers(ctx)
	s.check(ctx, "collect", s.collect)
	s.check(ctx, "drain", s.drain)
	s.processes(ctx)
	return s.results
}

// suite is one run of Check.
type suite struct {
	start Start
	cfg   Config
	show  func(Result)

	results     []Result
	description *pluginv1.DescribeResponse
	now         *Instance // configured; nil: to be started
}

func (s *suite) failed() bool { return s.results[len(s.results)-1].Problem != "" }

// check runs one check within its time limit and records the result.
func (s *suite) check(ctx context.Context, name string, f func(context.Context) error) {
	s.checkWithin(ctx, name, s.cfg.Patience, f)
}

func (s *suite) checkWithin(ctx context.Context, name string, patience time.Duration, f func(context.Context) error) {
	if ctx.Err() != nil {
		return
	}
	started := time.Now()
	bounded, cancel := context.WithTimeout(ctx, patience)
	err := f(bounded)
	late := bounded.Err() != nil || status.Code(err) == codes.DeadlineExceeded
	cancel()
	r := Result{Name: name, Took: time.Since(started)}
	switch {
	case errors.Is(err, errSkipped):
		r.Note = err.Error()
	case err != nil:
		r.Problem = s.explain(err)
		if late {
			r.Problem = fmt.Sprintf("it did not end within %s: %s", patience, r.Problem)
		}
		s.drop() // it may be in any state
	}
	s.results = append(s.results, r)
	s.show(r)
}

// explain returns the text of err, and that the plugin's process has exited if it has.
func (s *suite) explain(err error) string {
	if s.now == nil {
		return err.Error()
	}
	return s.now.mourn(err).Error()
}

// mourn returns an error that says so if the plugin's process has exited, which
// explains why a call failed.
func (i *Instance) mourn(err error) error {
	if i.process == nil {
		return err
	}
	select {
	case <-i.Exited:
		return fmt.Errorf("the plugin's process ended: %w%s", err, i.process.printed())
	case <-time.After(200 * time.Millisecond): // the news of an exit lags behind a broken call
		return err
	}
}

// drop closes the current instance.
func (s *suite) drop() {
	if s.now != nil {
		s.now.Close()
		s.now = nil
	}
}

// fresh starts an instance and does not configure it. The caller closes it.
func (s *suite) fresh(ctx context.Context) (*Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, max(startTimeout, s.cfg.Patience))
	defer cancel()
	return s.start(ctx)
}

// ready returns the configured instance that checks share if they need none of their own.
func (s *suite) ready(ctx context.Context) (*Instance, error) {
	if s.now != nil {
		return s.now, nil
	}
	i, err := s.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if err := i.Configure(ctx, s.cfg.Options); err != nil {
		i.Close()
		return nil, err
	}
	s.now = i
	return i, nil
}

func (s *suite) begins(ctx context.Context) error {
	i, err := s.fresh(ctx)
	if err != nil {
		return err
	}
	i.Close()
	return nil
}

var (
	pluginName = regexp.MustCompile(`^[a-z][a-z0-9_\-]{0,62}$`)
	slotName   = regexp.MustCompile(`^[a-z][a-z0-9_.\-]{0,127}$`)
	semver     = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.\-]+)?(\+[0-9A-Za-z.\-]+)?$`)
)

func (s *suite) describe(ctx context.Context) error {
	i, err := s.fresh(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	d, err := i.Plugin.Describe(ctx, &pluginv1.DescribeRequest{})
	if err != nil {
		return i.mourn(err)
	}
	var problems []error
	if !pluginName.MatchString(d.GetName()) {
		problems = append(problems, fmt.Errorf("the name is %.70q: want %s", d.GetName(), pluginName))
	}
	if !semver.MatchString(d.GetVersion()) {
		problems = append(problems, fmt.Errorf("the version is %.70q: want a semantic version such as 1.0.0", d.GetVersion()))
	}
	if schema := d.GetOptionsSchema(); schema != "" && !isObject([]byte(schema)) {
		problems = append(problems, fmt.Errorf("the schema of the options is not a JSON object: %.100s", schema))
	} else if schema != "" && s.cfg.Schema != nil {
		if err := s.cfg.Schema(schema); err != nil {
			problems = append(problems, fmt.Errorf("the schema of the options: %w", err))
		}
	}
	problems = append(problems, checkSlots(d.GetSlots()))
	if len(d.GetSlots()) > 0 {
		s.description = d
	}
	return errors.Join(problems...)
}

func checkSlots(slots []*pluginv1.Slot) error {
	if len(slots) == 0 {
		return errors.New("it serves nothing: Describe must list its slots")
	}
	var problems []error
	seen := map[string]bool{}
	for _, slot := range slots {
		name := slot.GetKind() + " " + slot.GetName()
		if seen[name] {
			problems = append(problems, fmt.Errorf("%s is listed twice", name))
		}
		seen[name] = true
		if !slotName.MatchString(slot.GetName()) {
			problems = append(problems, fmt.Errorf("%s: the name must match %s", name, slotName))
		}
		switch slot.GetKind() {
		case wire.KindHandler, wire.KindScaling:
		case wire.KindHealth:
			if !can(slot, wire.AbilityCheck) && !can(slot, wire.AbilityReport) {
				problems = append(problems, fmt.Errorf("%s: its abilities must name check, report or both", name))
			}
		default:
			problems = append(problems, fmt.Errorf("%s: the kind must be handler, scaling or health", name))
		}
	}
	return errors.Join(problems...)
}

func can(slot *pluginv1.Slot, ability string) bool {
	return slices.Contains(slot.GetAbilities(), ability)
}

func isObject(raw []byte) bool {
	var object map[string]any
	return json.Unmarshal(raw, &object) == nil && object != nil
}

// slots returns the slots of a kind.
func (s *suite) slots(kind string) []*pluginv1.Slot {
	var found []*pluginv1.Slot
	for _, slot := range s.description.GetSlots() {
		if slot.GetKind() == kind {
			found = append(found, slot)
		}
	}
	return found
}

func (s *suite) unconfigured(ctx context.Context) error {
	i, err := s.fresh(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	var problems []error
	expect := func(call string, err error) {
		if code := status.Code(err); code != codes.FailedPrecondition {
			problems = append(problems, fmt.Errorf("%s before Configure ends with code %s: want FailedPrecondition", call, code))
		}
	}
	if len(s.slots(wire.KindHandler)) > 0 {
		short, cancel := context.WithTimeout(ctx, s.cfg.Patience/4) // a stream that is accepted does not end by itself
		stream, err := i.Handler.Work(short)
		if err == nil {
			_, err = stream.Recv()
		}
		cancel()
		expect("Work", err)
	}
	if slots := s.slots(wire.KindScaling); len(slots) > 0 {
		_, err := i.Scaling.Decide(ctx, &pluginv1.DecideRequest{Algorithm: slots[0].GetName()})
		expect("Decide", err)
	}
	for _, slot := range s.slots(wire.KindHealth) {
		if can(slot, wire.AbilityCheck) {
			_, err := i.Health.Check(ctx, &pluginv1.CheckRequest{Name: slot.GetName()})
			expect("Check", err)
			break
		}
	}
	return errors.Join(problems...)
}

func (s *suite) unknownOption(ctx context.Context) error {
	i, err := s.fresh(ctx)
	if err != nil {
		return err
	}
	defer i.Close()
	answer, err := i.Plugin.Configure(ctx, &pluginv1.ConfigureRequest{Options: []byte(`{"no such option, surely": 1}`)})
	if err != nil {
		return fmt.Errorf("configure: %w; want an answer with field errors", err)
	}
	if len(answer.GetErrors()) == 0 {
		return errors.New("an unknown option is accepted: a misspelt one would be ignored silently")
	}
	return nil
}

func (s *suite) configure(ctx context.Context) error {
	_, err := s.ready(ctx)
	return err
}

func (s *suite) configuredTwice(ctx context.Context) error {
	i, err := s.ready(ctx)
	if err != nil {
		return err
	}
	if _, err := i.Plugin.Configure(ctx, &pluginv1.ConfigureRequest{Options: s.cfg.Options}); status.Code(err) != codes.FailedPrecondition {
		return fmt.Errorf("a second Configure ends with code %s: want FailedPrecondition", status.Code(err))
	}
	return nil
}

func (s *suite) health(ctx context.Context) error {
	i, err := s.ready(ctx)
	if err != nil {
		return err
	}
	h, err := i.Plugin.Health(ctx, &pluginv1.HealthRequest{})
	if err != nil {
		return err
	}
	switch h.GetStatus() {
	case pluginv1.HealthResponse_STATUS_HEALTHY, pluginv1.HealthResponse_STATUS_DEGRADED:
		return nil
	default:
		return fmt.Errorf("it reports %s %s", h.GetStatus(), h.GetMessage())
	}
}

func (s *suite) selfTest(ctx context.Context) error {
	i, err := s.ready(ctx)
	if err != nil {
		return err
	}
	answer, err := i.Plugin.SelfTest(ctx, &pluginv1.SelfTestRequest{})
	if err != nil {
		return err
	}
	if !answer.GetOk() {
		return fmt.Errorf("it fails: %s", answer.GetMessage())
	}
	return nil
}

var metricLine = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*"(,[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*")*,?\})? \S+( \d+)?$`)

func (s *suite) collect(ctx context.Context) error {
	i, err := s.ready(ctx)
	if err != nil {
		return err
	}
	answer, err := i.Plugin.Collect(ctx, &pluginv1.CollectRequest{})
	if status.Code(err) == codes.Unimplemented {
		return skipped("it has no metrics of its own")
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(answer.GetMetrics())) {
		line = strings.TrimRight(line, "\n")
		if line != "" && !strings.HasPrefix(line, "#") && !metricLine.MatchString(line) {
			return fmt.Errorf("not a sample in the Prometheus text format: %.200q", line)
		}
	}
	return nil
}

// drain checks that a draining plugin finishes its work and takes nothing new. The
// instance cannot be used afterwards.
func (s *suite) drain(ctx context.Context) error {
	i, err := s.ready(ctx)
	if err != nil {
		return err
	}
	defer s.drop()
	var work *Work
	if len(s.slots(wire.KindHandler)) > 0 {
		if work, err = i.OpenWork(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		defer work.Close()
		if _, err := work.run(ctx, Step{}.Message(nobody)); err != nil { // so that the stream is open
			return err
		}
	}
	answer, err := i.Plugin.Drain(ctx, &pluginv1.DrainRequest{TimeoutMs: 1000})
	if err != nil {
		return err
	}
	if n := answer.GetInFlight(); n != 0 {
		return fmt.Errorf("it reports %d steps in flight, but there are none", n)
	}
	if work != nil {
		if err := s.handsBack(ctx, work); err != nil {
			return err
		}
	}
	if slots := s.slots(wire.KindScaling); len(slots) > 0 {
		_, err := i.Scaling.Decide(ctx, &pluginv1.DecideRequest{Algorithm: slots[0].GetName()})
		if status.Code(err) != codes.Unavailable {
			return fmt.Errorf("after Drain, Decide ends with code %s: want Unavailable", status.Code(err))
		}
	}
	return nil
}

// processes checks what only a process can do: exit.
func (s *suite) processes(ctx context.Context) {
	s.drop()
	i, err := s.fresh(ctx)
	if err == nil {
		defer i.Close()
		if i.process == nil {
			return
		}
	}
	s.check(ctx, "exits when the host asks it to", func(context.Context) error {
		if err != nil {
			return err
		}
		i.Close()
		if state := i.process.cmd.ProcessState; state == nil || !state.Exited() {
			return errors.New("it had to be killed after two seconds: serve plugin.GRPCController, and exit at Shutdown")
		}
		return nil
	})
	s.checkWithin(ctx, "exits at SIGTERM", exitTimeout+startTimeout, func(ctx context.Context) error {
		i, err := s.fresh(ctx)
		if err != nil {
			return err
		}
		defer i.Close()
		return i.process.terminate(ctx)
	})
}
