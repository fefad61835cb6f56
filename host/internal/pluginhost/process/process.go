package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/runas"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

const (
	// How long go-plugin may take to return after its process was killed.
	unwind = 2 * time.Second
	// How long the notice of an exit may lag behind a broken call.
	exitNotice = 200 * time.Millisecond

	defaultStartTimeout = 10 * time.Second
	defaultMaxFiles     = 256
)

// Config specifies what to run and in which sandbox.
type Config struct {
	Name   string   // for messages
	Path   string   // the executable: an absolute path nobody else can write to
	Args   []string // besides the path
	RunDir string   // of a [RunDir]; the process gets a directory in it
	// User is the user the process runs as; nil: the host's user.
	User *runas.User

	StartTimeout time.Duration // until the process can be called; default 10s
	MaxFiles     uint64        // open files; default 256
	MemoryLimit  int64         // GOMEMLIMIT in bytes; 0: not set
	MaxProcs     int           // GOMAXPROCS; 0: not set
	Limits       Limits        // enforced by Groups, as far as possible
	Groups       *Groups       // nil: none
	PassEnv      []string      // names of the host's variables that it may see

	Log       hclog.Logger // receives what the process prints
	LogLimits LogLimits
	Dropped   func(lines int) // called for lines that were not logged; may be nil
}

// Process is a running plugin process that has completed the handshake. Its methods are
// safe for concurrent use.
type Process struct {
	*wire.Client

	runner *processRunner
	client *plugin.Client
	conns  *connections

	stop    sync.Once
	stopErr error
}

// Launch starts a process and performs the handshake. The process outlives ctx, but if
// ctx ends before the handshake, so does the process. On an error nothing is left behind.
func Launch(ctx context.Context, l *Launcher, cfg Config) (*Process, error) {
	if cfg.StartTimeout <= 0 {
		cfg.StartTimeout = defaultStartTimeout
	}
	if cfg.MaxFiles == 0 {
		cfg.MaxFiles = defaultMaxFiles
	}
	p := &Process{runner: newRunner(cfg, l), conns: &connections{}}
	p.client = plugin.NewClient(p.clientConfig(cfg))

	ctx, cancel := context.WithTimeoutCause(ctx, cfg.StartTimeout, ErrTimeout)
	defer cancel()
	connected := make(chan error, 1)
	go func() { connected <- p.connect() }()
	var err error
	select {
	case err = <-connected:
	case <-ctx.Done():
		err = context.Cause(ctx)
		p.runner.kill()
		select {
		case <-connected:
		case <-time.After(unwind):
		}
	}
	if err == nil {
		return p, nil
	}
	return nil, p.startError(cfg, err)
}

// ErrTimeout is the cause of a start that took too long.
var ErrTimeout = errors.New("no answer within start_timeout")

func (p *Process) clientConfig(cfg Config) *plugin.ClientConfig {
	prints := p.runner.sink
	return &plugin.ClientConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: wire.Plugins(nil),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		GRPCDialOptions: append(wire.DialOptions(),
			grpc.WithChainStreamInterceptor(p.conns.intercept)),
		AutoMTLS:         true,
		SkipHostEnv:      true,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: cfg.RunDir},
		StartTimeout:     cfg.StartTimeout,
		Logger:           hclog.NewNullLogger(), // everything relevant is reported here
		SyncStdout:       prints.stream("stdout", false),
		SyncStderr:       prints.stream("stderr", true),
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, dir string) (runner.Runner, error) {
			p.runner.prepare(cmd, dir)
			return p.runner, nil
		},
	}
}

// connect drives go-plugin. It blocks as long as the process makes it.
func (p *Process) connect() error {
	protocol, err := p.client.Client()
	if err != nil {
		return err
	}
	raw, err := protocol.Dispense(wire.Name)
	if err != nil {
		return err
	}
	client, ok := raw.(*wire.Client)
	if !ok {
		return fmt.Errorf("dispensed a %T", raw)
	}
	p.Client = client
	return nil
}

// startError cleans up and returns what went wrong, trying the most informative
// explanation first.
func (p *Process) startError(cfg Config, cause error) error {
	cleanup := p.Stop(0)
	ran, exit, garbage, startErr := p.runner.outcome()
	e := &StartError{Plugin: cfg.Name, Stdout: garbage}
	if ran {
		e.Exit = &exit
	}
	switch {
	case startErr != nil && !errors.Is(startErr, errStopped): // otherwise it was too late for a start
		e.Reason, e.Err = "execute "+cfg.Path, startErr
		if errors.Is(startErr, os.ErrPermission) {
			e.Hint = "is the plugin store on a file system mounted noexec?"
		} else if errors.Is(startErr, os.ErrNotExist) {
			e.Hint = "its interpreter or dynamic loader is missing"
		}
	case garbage != "":
		e.Reason = fmt.Sprintf("it printed %.200q on standard output before the handshake", garbage)
		e.Hint = "a plugin must not print there before it serves: use standard error, and check what its imports print"
	case errors.Is(cause, ErrTimeout):
		e.Reason = fmt.Sprintf("no handshake within %s", cfg.StartTimeout)
		e.Hint = "it hangs, or the machine is overloaded: raise start_timeout"
	case ran && exit.Signal != syscall.SIGKILL: // SIGKILL is how it is ended here
		e.Reason = "it ended before the handshake: " + exit.String()
		if strings.Contains(exit.Stderr, "This binary is a plugin") {
			e.Hint = "it is a plugin for another product: rebuild it with this SDK"
		}
	default:
		e.Reason, e.Err = "handshake", cause
		if strings.Contains(cause.Error(), "incompatible") { // go-plugin has no error value for it
			e.Hint = "it uses a different version of the contract than this host: build it with the SDK of the host's version"
		}
	}
	if cleanup != nil {
		return errors.Join(e, cleanup)
	}
	return e
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.runner.proc.Pid }

// Resident returns how much memory a process uses; false if it has ended.
func Resident(pid int) (bytes int64, ok bool) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0, false
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(raw), &size, &resident); err != nil {
		return 0, false
	}
	return resident * int64(os.Getpagesize()), true
}

// CPU returns the processor time that a process has used; false if it has ended.
func CPU(pid int) (used time.Duration, ok bool) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	_, after, _ := strings.Cut(string(raw[bytes.LastIndexByte(raw, ')')+1:]), " ")
	fields := strings.Fields(after) // the first of these is the third field of stat
	if len(fields) < 13 {
		return 0, false
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	const tick = time.Second / 100 // of the kernel's interface, on every machine
	return time.Duration(user+system) * tick, err == nil && err2 == nil
}

// Suspended reports whether the process is stopped by a signal, and so cannot answer. A
// debugger's stop does not count.
func (p *Process) Suspended() bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid()) + "/stat")
	if err != nil {
		return false
	}
	end := strings.LastIndexByte(string(stat), ')') // of the name, which may contain anything
	return end >= 0 && strings.HasPrefix(string(stat[end:]), ") T")
}

// Exited returns a channel that is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.runner.exited }

// Exit returns how the process ended. It is complete once Exited is closed.
func (p *Process) Exit() Exit {
	_, exit, _, _ := p.runner.outcome()
	return exit
}

// Kill ends the process and its group at once. Stop must still be called.
func (p *Process) Kill() { p.runner.kill() }

// Stop asks the process to end, kills its group after grace, and frees what was held for
// it. Calls in flight fail. It returns within grace and a few seconds even if the process
// is stopped or stuck, and may be called after the process has ended; a second call does
// nothing. An error means that something was left behind.
func (p *Process) Stop(grace time.Duration) error {
	p.stop.Do(func() { p.stopErr = p.end(grace) })
	return p.stopErr
}

func (p *Process) end(grace time.Duration) error {
	p.runner.ask()
	if grace <= 0 {
		p.runner.kill()
	}
	ended := make(chan struct{})
	go func() {
		p.client.Kill()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(grace):
	}
	p.runner.kill() // the group may have outlived the process
	var err error
	select {
	case <-ended:
	case <-time.After(unwind):
		err = fmt.Errorf("stop plugin %s: go-plugin is still waiting for process %s", p.runner.cfg.Name, p.runner.ID())
	}
	p.conns.close()
	if p.runner.dir != "" {
		killUsersOf(p.runner.dir)
		err = errors.Join(err, os.RemoveAll(p.runner.dir))
	}
	return err
}

// connections remembers the gRPC connections that go-plugin opened, because go-plugin
// forgets one if the process ends while it connects.
type connections struct {
	mu  sync.Mutex
	all map[*grpc.ClientConn]struct{}
}

func (c *connections) intercept(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c.mu.Lock()
	if c.all == nil {
		c.all = make(map[*grpc.ClientConn]struct{})
	}
	c.all[cc] = struct{}{}
	c.mu.Unlock()
	return streamer(ctx, desc, cc, method, opts...)
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for cc := range c.all {
		_ = cc.Close() // usually already closed
	}
}

// Ended reports whether the process has ended. The notice of an exit may lag a little
// behind a call broken by it, so Ended waits a moment; if the process has ended, until
// its last output is read.
func (p *Process) Ended() bool {
	select {
	case <-p.runner.gone:
		<-p.Exited()
		return true
	case <-time.After(exitNotice):
		return false
	}
}

// Abort ends a process that completed the handshake but is of no use, and returns the
// reason as a *[StartError]: phase says what was tried. If the process ended on its own,
// its exit explains the failure better than the cause does.
func (p *Process) Abort(phase string, cause error) error {
	ended := p.Ended()
	cleanup := p.Stop(0)
	exit := p.Exit()
	e := &StartError{Plugin: p.runner.cfg.Name, Reason: phase, Exit: &exit, Err: cause}
	if ended {
		e.Reason = "it ended during " + phase + ": " + exit.String()
	}
	if cleanup != nil {
		return errors.Join(e, cleanup)
	}
	return e
}
