package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/artifact"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// launch starts a process and makes it ready: intake, handshake, Describe,
// Configure, Health, SelfTest, stream. It does not route it. On an error nothing
// is left behind; ran tells whether a process was executed at all.
func (s *slot) launch(ctx context.Context) (g *generation, ran bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.spec.StartTimeout, process.ErrTimeout)
	defer cancel()
	stored, err := s.intake()
	if err != nil {
		return nil, false, fmt.Errorf("start plugin %s: %w", s.spec.Name, err)
	}
	number, err := s.host.cfg.NextGeneration(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("start plugin %s: next generation: %w", s.spec.Name, err)
	}
	proc, err := process.Launch(ctx, s.life.launcher, process.Config{
		Name: s.spec.Name, Path: stored.Path, RunDir: s.life.runDir.Path(),
		StartTimeout: s.spec.StartTimeout, MaxFiles: s.spec.MaxFiles,
		MemoryLimit: s.spec.MemoryLimit, MaxProcs: s.spec.MaxProcs, PassEnv: s.spec.Env,
		Log: s.log.With("generation", number), LogLimits: s.spec.LogLimits,
		Dropped: func(n int) { s.metrics.dropped.Add(float64(n)) },
	})
	if err != nil { // it names the stored copy, if any: say whose it is
		return nil, true, fmt.Errorf("%s: %w", s.spec.Path, err)
	}
	g = &generation{
		number: number, plugin: s.spec.Name, artifact: stored, proc: proc,
		since: time.Now(), idle: make(chan struct{}, 1),
	}
	if phase, err := s.prepare(ctx, g); err != nil {
		return nil, true, fmt.Errorf("%s: %w", s.spec.Path, proc.Abort(phase, err))
	}
	return g, true, nil
}

// intake takes the executable in, once: a process that is started again runs
// the same bytes, as long as they are still the same.
func (s *slot) intake() (artifact.Artifact, error) {
	s.mu.Lock()
	stored := s.stored
	s.mu.Unlock()
	if stored.Path != "" {
		err := s.life.store.Verify(stored)
		if err == nil {
			return stored, nil
		}
		s.log.Warn("stored copy of the plugin is not usable, taking the executable in again", "error", err)
	}
	want := s.spec.SHA256
	if want == "" {
		want = stored.SHA256
	}
	stored, err := s.life.store.Intake(s.spec.Path, want)
	if err != nil {
		return artifact.Artifact{}, err
	}
	s.mu.Lock()
	s.stored = stored
	s.mu.Unlock()
	return stored, nil
}

// prepare talks the process into readiness. It returns the phase that failed.
func (s *slot) prepare(ctx context.Context, g *generation) (phase string, err error) {
	d, err := g.proc.Plugin.Describe(ctx, &pluginv1.DescribeRequest{})
	if err != nil {
		return "describe", callError(ctx, err)
	}
	if err := g.adopt(d, s.spec.MaxInFlight); err != nil {
		return "describe", err
	}
	options := s.spec.Options
	if len(options) == 0 {
		options = []byte("{}")
	}
	c, err := g.proc.Plugin.Configure(ctx, &pluginv1.ConfigureRequest{
		Options: options, Generation: g.number, Environment: s.host.cfg.Environment,
		MaxInFlight: uint32(g.window), //nolint:gosec // at most maxWindow
	})
	if err != nil {
		return "configure", callError(ctx, err)
	}
	if err := optionErrors(c.GetErrors()); err != nil {
		return "configure", err
	}
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
	g.work, err = openStream(g, s.metrics, func(cause error) string { return s.broken(g, cause) })
	return "work", err
}

// maxShown is how much of a plugin's words goes into an error, in bytes.
const maxShown = 4 << 10

// adopt checks what the plugin says of itself and takes it over.
func (g *generation) adopt(d *pluginv1.DescribeResponse, most int) error {
	var bad []string
	for _, slot := range d.GetSlots() {
		switch {
		case slot.GetKind() != KindHandler:
		case !handlerName.MatchString(slot.GetName()):
			bad = append(bad, fmt.Sprintf("%.140q", slot.GetName()))
		default:
			g.handlers = append(g.handlers, slot.GetName())
		}
	}
	slices.Sort(g.handlers)
	g.handlers = slices.Compact(g.handlers)
	switch {
	case len(bad) > 0:
		return fmt.Errorf("it serves handlers whose names do not match %s: %s", handlerName, strings.Join(bad, ", "))
	case len(g.handlers) == 0:
		return errors.New("it serves no handlers")
	}
	g.version, g.window = clip(d.GetVersion(), 128), most
	if n := int(d.GetMaxInFlight()); n > 0 {
		g.window = min(n, most)
	}
	return nil
}

func optionErrors(fields []*pluginv1.FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	lines := make([]string, len(fields))
	for i, f := range fields {
		path := f.GetPath()
		if path == "" {
			path = "/"
		}
		lines[i] = path + ": " + f.GetMessage()
	}
	return fmt.Errorf("it refuses its options: %s", clip(strings.Join(lines, "; "), maxShown))
}

// callError says why a call came to nothing: the end of ctx in our words
// rather than in gRPC's.
func callError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && status.Code(err) != codes.Unavailable {
		return fmt.Errorf("no answer: %w", cause)
	}
	return err
}
