package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/health"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// Plugin holds the services of a plugin without a process around them.
type Plugin struct {
	pluginv1.UnimplementedPluginServer

	name, version string
	settings      settings
	services      []service
	logger        hclog.Logger

	configuring sync.Mutex  // held while Configure runs
	configured  atomic.Bool // set once, when Configure has succeeded
	draining    atomic.Bool // set once
}

var _ wire.Server = (*Plugin)(nil)

// New returns the services of a plugin. Its error names everything that is wrong with the
// parts.
func New(parts ...Part) (*Plugin, error) {
	if len(parts) == 0 {
		return nil, errors.New("make plugin: no parts given")
	}
	p := &Plugin{name: parts[0].name, version: parts[0].version}
	all := Part{
		handlers: map[string]handler.Handler{}, algorithms: map[string]scaler.New{}, checks: map[string]health.Service{},
	}
	var problems []error
	for _, part := range parts {
		problems = append(problems, part.settings.problems...)
		problems = append(problems, p.adopt(part), all.merge(part))
	}
	if len(all.handlers)+len(all.algorithms)+len(all.checks) == 0 {
		problems = append(problems, errors.New("no handlers, algorithms or health services given"))
	}
	if !pluginName.MatchString(p.name) {
		problems = append(problems, fmt.Errorf("plugin name %q: want %s", p.name, pluginName))
	}
	if !semver.MatchString(p.version) {
		problems = append(problems, fmt.Errorf("plugin version %q: want a semantic version such as 1.0.0", p.version))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("make plugin %s: %w", p.name, err)
	}
	p.logger = p.settings.logger
	if p.logger == nil {
		p.logger = defaultLogger(os.Stderr)
	}
	if len(all.handlers) > 0 {
		p.services = append(p.services, newSteps(p, all.handlers))
	}
	if len(all.algorithms) > 0 {
		p.services = append(p.services, newScaling(p, all.algorithms))
	}
	if len(all.checks) > 0 {
		p.services = append(p.services, newChecks(p, all.checks))
	}
	return p, nil
}

// merge adds the slots of another part.
func (p *Part) merge(other Part) error {
	return errors.Join(
		merge("handler", p.handlers, other.handlers, func(h handler.Handler) bool { return h == nil }),
		merge("algorithm", p.algorithms, other.algorithms, func(n scaler.New) bool { return n == nil }),
		merge("health service", p.checks, other.checks, func(s health.Service) bool { return s.Checker == nil && s.Reporter == nil }),
	)
}

// adopt takes over a part's settings. However many parts it has, a plugin has one name, one
// version and one set of options.
func (p *Plugin) adopt(part Part) error {
	if part.name != p.name || part.version != p.version {
		return fmt.Errorf("parts disagree: %s %s and %s %s", p.name, p.version, part.name, part.version)
	}
	s := part.settings
	if s.options != nil {
		if p.settings.options != nil {
			return errors.New("options are declared twice")
		}
		p.settings.options = s.options
	}
	if s.selfTest != nil {
		if p.settings.selfTest != nil {
			return errors.New("a self-test is given twice")
		}
		p.settings.selfTest = s.selfTest
	}
	if s.logger != nil {
		p.settings.logger = s.logger
	}
	p.settings.maxInFlight = max(p.settings.maxInFlight, s.maxInFlight)
	return nil
}

// Register registers the plugin's services.
func (p *Plugin) Register(r grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServer(r, p)
	for _, s := range p.services {
		s.register(r)
	}
}

// Describe describes the plugin to the host.
func (p *Plugin) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	d := &pluginv1.DescribeResponse{
		Name:        p.name,
		Version:     p.version,
		SdkVersion:  sdkVersion(),
		MaxInFlight: uint32(p.settings.maxInFlight), // checked by MaxInFlight
	}
	if p.settings.options != nil {
		d.OptionsSchema = p.settings.options.schema
	}
	for _, s := range p.services {
		d.Slots = append(d.Slots, s.slots()...)
	}
	return d, nil
}

// Configure accepts the plugin's options. It succeeds only once.
func (p *Plugin) Configure(ctx context.Context, req *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	p.configuring.Lock()
	defer p.configuring.Unlock()
	if p.configured.Load() {
		return nil, status.Error(codes.FailedPrecondition, "already configured")
	}
	if problems := p.settings.options.accept(ctx, req.GetOptions()); len(problems) > 0 {
		return &pluginv1.ConfigureResponse{Errors: problems}, nil
	}
	limit := p.settings.maxInFlight
	if n := int(req.GetMaxInFlight()); n > 0 && (limit == 0 || n < limit) {
		limit = n
	}
	for _, s := range p.services {
		s.configure(limit)
	}
	p.configured.Store(true)
	return &pluginv1.ConfigureResponse{}, nil
}

// Health returns the health of the plugin.
func (p *Plugin) Health(context.Context, *pluginv1.HealthRequest) (*pluginv1.HealthResponse, error) {
	h := &pluginv1.HealthResponse{
		Status:   pluginv1.HealthResponse_STATUS_HEALTHY,
		InFlight: uint32(p.inFlight()),
	}
	if p.draining.Load() {
		h.Status, h.Message = pluginv1.HealthResponse_STATUS_DEGRADED, "draining"
	}
	return h, nil
}

// SelfTest runs the author's self-test.
func (p *Plugin) SelfTest(ctx context.Context, _ *pluginv1.SelfTestRequest) (*pluginv1.SelfTestResponse, error) {
	if p.settings.selfTest == nil {
		return &pluginv1.SelfTestResponse{Ok: true, Message: "no self-test"}, nil
	}
	if err := guard(func() error { return p.settings.selfTest(ctx) }); err != nil {
		return &pluginv1.SelfTestResponse{Message: clean(err.Error(), maxMessageBytes)}, nil
	}
	return &pluginv1.SelfTestResponse{Ok: true}, nil
}

// Drain refuses new steps and waits until the running ones are done or the time is up. With a
// timeout of zero it does not wait.
func (p *Plugin) Drain(ctx context.Context, req *pluginv1.DrainRequest) (*pluginv1.DrainResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(req.GetTimeoutMs())*time.Millisecond)
	defer cancel()
	left := p.drain(ctx)
	return &pluginv1.DrainResponse{InFlight: uint32(left)}, nil
}

// Collect returns the plugin's counters in the Prometheus text format.
func (p *Plugin) Collect(context.Context, *pluginv1.CollectRequest) (*pluginv1.CollectResponse, error) {
	var b bytes.Buffer
	collectProcess(&b)
	for _, s := range p.services {
		s.collect(&b)
	}
	return &pluginv1.CollectResponse{Metrics: b.Bytes()}, nil
}

func (p *Plugin) drain(ctx context.Context) int {
	p.draining.Store(true)
	left := 0
	for _, s := range p.services {
		left += s.drain(ctx)
	}
	return left
}

func (p *Plugin) inFlight() int {
	n := 0
	for _, s := range p.services {
		n += s.inFlight()
	}
	return n
}

// guard runs the author's code; a panic becomes an error.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, stack())
		}
	}()
	return f()
}

// shielded runs the author's code for one slot; a panic is logged and becomes a *panicError.
func (p *Plugin) shielded(kind, name string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			panicked := &panicError{value: clean(fmt.Sprint(r), maxMessageBytes), stack: stack()}
			p.logger.Error("plugin code panicked", kind, name, "panic", panicked.value, "stack", panicked.stack)
			err = panicked
		}
	}()
	return f()
}

// told returns the text of an error for the host; it is never empty.
func told(err error) string {
	if text := clean(err.Error(), maxMessageBytes); text != "" {
		return text
	}
	return fmt.Sprintf("an error without a message, of type %T", err)
}

// sdkVersion is the version of the module this package was built from, as the
// build recorded it.
func sdkVersion() string {
	const module = "github.com/tasker-systems/tasker-host"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, dep := range info.Deps {
		if dep.Path == module {
			return dep.Version
		}
	}
	if info.Main.Path == module {
		return info.Main.Version
	}
	return ""
}
