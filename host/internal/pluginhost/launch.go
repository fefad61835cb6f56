package pluginhost

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/artifact"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/rollout"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/runas"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// release is something a slot can run: an executable and its settings.
type release struct {
	spec   Spec
	stored artifact.Artifact
	config string // digest of the settings the process is started with
}

// same reports whether one release can replace the other without a new process.
func (r *release) same(other *release) bool {
	return r != nil && other != nil && r.stored.SHA256 == other.stored.SHA256 && r.config == other.config
}

// with returns the release with the settings of a specification that need no new process.
// The others, and the file it came from if the specification names another executable,
// are what it runs. It copies the release, since others may be reading it.
func (r *release) with(settings Spec, sum string) *release {
	tuned := *r
	tuned.spec = settings
	tuned.spec.keepFixed(r.spec)
	if settings.Path == "" || sum != r.stored.SHA256 {
		tuned.spec.Path, tuned.spec.SHA256 = r.spec.Path, r.spec.SHA256
	}
	return &tuned
}

// key identifies a release.
func (r *release) key() string { return r.stored.SHA256 + "/" + r.config }

// wanted returns what should serve. It takes in the executable once: a restarted process
// runs the same bytes, as long as they have not changed in the store.
func (s *slot) wanted(ctx context.Context) (*release, error) {
	s.mu.Lock()
	want, spec := s.want, s.spec
	s.mu.Unlock()
	if want != nil {
		err := s.life.store.Verify(want.stored)
		if err == nil {
			return want, nil
		}
		s.log.Warn("stored copy of the plugin cannot be used; storing the executable again", "error", err)
		if want.spec.Path == "" {
			return nil, fmt.Errorf("start plugin %s: %w", s.label, err)
		}
		_, err = s.life.store.Intake(want.spec.Path, want.stored.SHA256)
		if err != nil {
			return nil, fmt.Errorf("start plugin %s: %w", s.label, err)
		}
		return want, nil
	}
	want, err := s.take(spec)
	if err != nil {
		return nil, fmt.Errorf("start plugin %s: %w", s.label, err)
	}
	if want, err = s.allowed(ctx, want); err != nil {
		return nil, fmt.Errorf("start plugin %s: %w", s.label, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.want == nil {
		s.want = want
	}
	return s.want, nil
}

// take takes in the executable of a specification.
func (s *slot) take(spec Spec) (*release, error) {
	r := &release{spec: spec, config: spec.digest(s.host.cfg.Environment)}
	var err error
	if spec.Path == "" {
		r.stored, err = s.life.store.Get(spec.SHA256)
	} else {
		r.stored, err = s.life.store.Intake(spec.Path, spec.SHA256)
	}
	return r, err
}

// bring starts a process and makes it ready: handshake, Describe, Configure, Health,
// SelfTest, stream. It does not route calls to it. On an error nothing is left behind.
func (s *slot) bring(ctx context.Context, r *release, actor journal.Actor, reason string) (*generation, error) {
	if err := s.life.acquire(ctx); err != nil {
		return nil, err
	}
	defer s.life.release()
	ctx, cancel := context.WithTimeoutCause(ctx, r.spec.StartTimeout, process.ErrTimeout)
	defer cancel()
	number, err := s.host.cfg.NextGeneration(ctx)
	if err != nil {
		return nil, fmt.Errorf("start plugin %s: next generation: %w", s.label, err)
	}
	g := &generation{
		number: number, plugin: s.label, runs: r, since: time.Now(),
		idle: make(chan struct{}, 1), stop: make(chan struct{}), tripped: make(chan struct{}, 1),
		mirror: make(chan struct{}, mirrors), pools: make(map[[2]string]struct{}),
	}
	g.breaker = newCallBreaker(s.label, func() { signal(g.tripped) })
	s.mu.Lock()
	s.show(g)
	s.host.journal.Later(
		s.move(g, journal.Discovered, actor, reason),
		s.move(g, journal.Verified, actor, reason),
		s.move(g, journal.Starting, actor, reason))
	s.mu.Unlock()
	if err := s.launch(ctx, g); err != nil {
		s.note(g, journal.Failed, err.Error())
		if s.ctx.Err() == nil {
			s.breaker(r).exited()
		}
		return nil, err
	}
	s.host.live.add(g)
	s.tasks.Go(func() { s.guard(g) })
	return g, nil
}

// launch executes the process of a generation and makes it ready.
func (s *slot) launch(ctx context.Context, g *generation) error {
	spec := g.runs.spec
	began := time.Now()
	user, err := runas.Find(spec.User)
	if err != nil {
		return fmt.Errorf("%s: start plugin %s: %w", spec.origin(), s.label, err)
	}
	groups := s.confine(g, user)
	proc, err := process.Launch(ctx, s.life.launcher, process.Config{
		Name: s.label, Path: g.runs.stored.Path, RunDir: s.life.runDir.Path(), User: user,
		StartTimeout: spec.StartTimeout, MaxFiles: spec.MaxFiles,
		MemoryLimit: spec.MemoryLimit, MaxProcs: spec.MaxProcs, PassEnv: spec.Env,
		Limits: spec.Limits, Groups: groups,
		Log: s.log.With("generation", g.number), LogLimits: spec.LogLimits,
		Dropped: func(n int) { s.metrics.dropped.Add(float64(n)) },
	})
	if err != nil { // the error names the stored copy, if any: say whose it is
		return fmt.Errorf("%s: %w", spec.origin(), err)
	}
	s.mu.Lock()
	g.proc, g.own = proc, time.Since(began) // status readers see it from now on
	s.mu.Unlock()
	if phase, err := s.prepare(ctx, g); err != nil {
		return fmt.Errorf("%s: %w", spec.origin(), g.proc.Abort(phase, err))
	}
	return nil
}

// confine determines what the process of a generation may use, and the user it runs as.
// It returns the control groups that enforce the limits; nil: none are needed.
func (s *slot) confine(g *generation, user *runas.User) *process.Groups {
	limits := g.runs.spec.Limits
	groups := new(process.Groups)
	if limits.Any() {
		groups = s.life.groups()
	}
	g.limits, g.limited = groups.Report(limits, user), groups.Brief(limits, user)
	if user == nil && !limits.Any() {
		return nil
	}
	s.log.Info("plugin limits", "generation", g.number, "limits", g.limits)
	return groups
}

// prepare makes the process ready. It returns the phase that failed.
func (s *slot) prepare(ctx context.Context, g *generation) (phase string, err error) {
	spec := g.runs.spec
	d, err := g.proc.Plugin.Describe(ctx, &pluginv1.DescribeRequest{})
	if err != nil {
		return "describe", callError(ctx, err)
	}
	s.mu.Lock() // status readers already see it
	err = g.adopt(d, spec)
	s.mu.Unlock()
	if err != nil {
		return "describe", err
	}
	s.note(g, journal.Handshaken, "it described itself")
	options, secrets, err := s.resolve(spec.Options, d.GetOptionsSchema())
	if err != nil {
		return "configure", err
	}
	c, err := g.proc.Plugin.Configure(ctx, &pluginv1.ConfigureRequest{
		Options: options, Generation: g.number, Environment: s.host.cfg.Environment,
		MaxInFlight: uint32(g.window), // at most maxWindow
	})
	if err != nil {
		return "configure", callError(ctx, err)
	}
	if err := s.optionErrors(faultsOf(c.GetErrors()), secrets); err != nil {
		return "configure", err
	}
	s.note(g, journal.Configured, "it accepted its options")
	s.note(g, journal.Probing, "its self-test runs")
	for range spec.Rollout.Probes {
		if phase, err := probe(ctx, g); err != nil {
			return phase, err
		}
	}
	if len(g.handlers) > 0 {
		g.work, err = openStream(g, s.metrics, func(cause error) string { return s.broken(g, cause) })
	}
	return "work", err
}

// probe checks a plugin's health and has it test itself.
func probe(ctx context.Context, g *generation) (phase string, err error) {
	h, err := g.proc.Plugin.Health(ctx, &pluginv1.HealthRequest{})
	if err != nil {
		return "health", callError(ctx, err)
	}
	if h.GetStatus() == pluginv1.HealthResponse_STATUS_UNHEALTHY {
		return "health", fmt.Errorf("it is unhealthy: %s", clip(h.GetMessage(), maxShown))
	}
	t, err := g.proc.Plugin.SelfTest(ctx, &pluginv1.SelfTestRequest{})
	if err != nil {
		return "self-test", callError(ctx, err)
	}
	if !t.GetOk() {
		return "self-test", fmt.Errorf("it fails: %s", clip(t.GetMessage(), maxShown))
	}
	return "", nil
}

// maxSlots limits how much a plugin may serve: its names appear in the log, the route
// table and the status.
const maxSlots = 4096

// maxShown limits how much of a plugin's text goes into an error, in bytes.
const maxShown = 4 << 10

// adopt checks the plugin's description of itself and stores it. The caller holds the
// slot's lock.
func (g *generation) adopt(d *pluginv1.DescribeResponse, spec Spec) error {
	if n := len(d.GetSlots()); n > maxSlots {
		return fmt.Errorf("it declares %d handlers, algorithms and health services, more than the maximum of %d", n, maxSlots)
	}
	var bad []string
	for _, slot := range d.GetSlots() {
		switch {
		case !slices.Contains(kinds, slot.GetKind()):
		case !handlerName.MatchString(slot.GetName()):
			bad = append(bad, fmt.Sprintf("%.140q", slot.GetName()))
		case slot.GetKind() == KindHandler:
			g.handlers = append(g.handlers, slot.GetName())
		default:
			t := target{slot.GetKind(), slot.GetName()}
			g.others = append(g.others, t)
			if g.abilities == nil {
				g.abilities = map[target][]string{}
			}
			g.abilities[t] = slot.GetAbilities()
		}
	}
	slices.Sort(g.handlers)
	g.handlers = slices.Compact(g.handlers)
	switch {
	case len(bad) > 0:
		return fmt.Errorf("it serves handlers whose names do not match %s: %s", handlerName, clip(strings.Join(bad, ", "), maxShown))
	case !slices.ContainsFunc(g.targets(), func(t target) bool { return t.kind == spec.Kind }):
		return fmt.Errorf("it serves no %s", plurals[spec.Kind])
	}
	names := slices.Clone(g.handlers)
	for _, t := range g.others {
		names = append(names, t.String())
	}
	g.recent = rollout.NewRecord(names)
	g.version, g.sdk, g.window = clip(d.GetVersion(), 128), clip(d.GetSdkVersion(), 128), spec.MaxInFlight
	if n := int(d.GetMaxInFlight()); n > 0 {
		g.window = min(n, spec.MaxInFlight)
	}
	return nil
}

// callError returns why a call failed: the end of ctx in our words rather than gRPC's.
func callError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && status.Code(err) != codes.Unavailable {
		return fmt.Errorf("no answer: %w", cause)
	}
	return err
}
