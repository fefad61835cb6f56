package tryout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// Start starts the plugin under test; each call returns a fresh instance.
type Start func(ctx context.Context) (*Instance, error)

// Instance is a plugin that was started but not configured.
type Instance struct {
	*wire.Client
	process *process // nil: it runs in memory
	close   func()
}

// Close stops the plugin.
func (i *Instance) Close() { i.close() }

// process describes a plugin's process.
type process struct {
	*program
	client *plugin.Client
	stop   func() // kills it, also while it starts
	words  *tail
	end    sync.Once
}

// Limits for starting and stopping, and for what is kept of the output.
const (
	startTimeout = 10 * time.Second
	exitTimeout  = 15 * time.Second // after SIGTERM: ten seconds for running work, plus some
	hangTimeout  = 3 * time.Second  // after the host's request: two seconds to exit, plus one
	tailBytes    = 4 << 10
)

// Process starts an executable for each call. It sees those variables of this process that
// are named in env, and the handshake's. Like a host's, it has a private directory for its
// socket.
func Process(path string, env ...string) Start {
	return func(ctx context.Context) (*Instance, error) {
		life, stop := context.WithCancel(context.Background()) // not ctx: that is for the start
		cmd := exec.CommandContext(life, path)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"}
		for _, name := range env {
			if value, ok := os.LookupEnv(name); ok {
				cmd.Env = append(cmd.Env, name+"="+value)
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so the terminal's signals do not reach it
		p := &process{program: &program{cmd: cmd, gone: make(chan struct{})}, stop: stop, words: &tail{}}
		p.client = plugin.NewClient(p.config(startsWithin(ctx)))
		client, err := p.connect(ctx)
		if err != nil {
			p.kill()
			return nil, fmt.Errorf("start %s: %w%s", path, p.explain(err, p.words.String()), p.printed())
		}
		return &Instance{Client: client, process: p, close: p.kill}, nil
	}
}

func (p *process) config(patience time.Duration) *plugin.ClientConfig {
	return &plugin.ClientConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: wire.Plugins(nil),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		GRPCDialOptions:  wire.DialOptions(),
		AutoMTLS:         true,
		SkipHostEnv:      true,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: socketParent()},
		StartTimeout:     patience,
		Logger:           hclog.NewNullLogger(),
		Stderr:           p.words,
		SyncStdout:       p.words,
		SyncStderr:       p.words,
		RunnerFunc: func(_ hclog.Logger, carrier *exec.Cmd, dir string) (runner.Runner, error) {
			p.cmd.Env = append(append(p.cmd.Env, "TMPDIR="+dir), carrier.Env...) // the handshake's variables come last, so nothing overrides them
			return p.program, nil
		},
	}
}

// socketParent is where go-plugin makes the directory for the socket, which it removes
// when the process has ended. The path of a socket has at most 103 bytes, on the system
// with the fewest; go-plugin's part of it is two names, each with up to ten digits.
func socketParent() string {
	if dir := os.TempDir(); len(dir)+len("/plugin-dir4294967295/plugin4294967295") <= 103 {
		return dir
	}
	return "/tmp"
}

// startsWithin returns how long a start may take: until ctx ends, but at least startTimeout.
func startsWithin(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return max(time.Until(end), startTimeout)
	}
	return startTimeout
}

func (p *process) connect(ctx context.Context) (*wire.Client, error) {
	type result struct {
		client *wire.Client
		err    error
	}
	connected := make(chan result, 1)
	go func() {
		client, err := p.dispense()
		connected <- result{client, err}
	}()
	select {
	case r := <-connected:
		return r.client, r.err
	case <-ctx.Done():
		p.stop()
		<-connected
		return nil, context.Cause(ctx)
	}
}

func (p *process) dispense() (*wire.Client, error) {
	protocol, err := p.client.Client()
	if err != nil {
		return nil, err
	}
	remote, err := protocol.Dispense(wire.Name)
	if err != nil {
		return nil, err
	}
	client, ok := remote.(*wire.Client)
	if !ok {
		return nil, fmt.Errorf("a plugin of type %T", remote)
	}
	return client, nil
}

// kill asks the process to exit and kills it if it does not. go-plugin would wait forever
// for the answer of a process that hangs.
func (p *process) kill() {
	p.end.Do(func() {
		defer p.stop()
		defer time.AfterFunc(hangTimeout, p.stop).Stop()
		p.client.Kill()
	})
}

// terminate sends SIGTERM and waits for the process to exit.
func (p *process) terminate(ctx context.Context) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("send SIGTERM: %w", err)
	}
	select {
	case <-p.gone:
		return nil
	case <-time.After(exitTimeout):
		return fmt.Errorf("it is still running %s after SIGTERM", exitTimeout)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// printed returns the end of what the process printed, if it printed anything.
func (p *process) printed() string {
	if text := p.words.String(); text != "" {
		return "\nits last output:\n" + text
	}
	return ""
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text.Write(p)
	if extra := t.text.Len() - tailBytes; extra > 0 {
		t.text.Next(extra)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimRight(strings.ToValidUTF8(t.text.String(), "�"), "\n")
}

// InMemory serves the server that newServer returns within this process, over an
// in-memory gRPC connection.
func InMemory(newServer func() (wire.Server, error)) Start {
	return func(ctx context.Context) (*Instance, error) {
		services, err := newServer()
		if err != nil {
			return nil, err
		}
		listener := bufconn.Listen(1 << 20)
		server := grpc.NewServer(wire.ServerOptions()...)
		services.Register(server)
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(listener) }) // it ends with Stop
		dial := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
		conn, err := grpc.NewClient("passthrough:plugin", append(wire.DialOptions(),
			grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			server.Stop()
			serving.Wait()
			return nil, errors.Join(fmt.Errorf("connect to plugin: %w", err), listener.Close())
		}
		alive, end := context.WithCancel(context.WithoutCancel(ctx))
		var once sync.Once
		return &Instance{Client: wire.NewClient(alive, conn), close: func() {
			once.Do(func() {
				end()
				_ = conn.Close()
				server.Stop()
				serving.Wait()
			})
		}}, nil
	}
}
