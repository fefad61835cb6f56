package tryout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"

	"github.com/tasker-systems/tasker-host/sdk/wire"
)

const (
	// How long a process whose start has failed may take to end by itself: its own
	// exit explains more than being killed.
	lastWords = 200 * time.Millisecond
	// How long output is read after the process has ended: a child of it may hold
	// the pipes open forever.
	drainOutput = 500 * time.Millisecond
	shownLine   = 200 // bytes of a line that is not a handshake
)

// program runs an executable for go-plugin and remembers what explains why it is
// not a plugin: go-plugin's own messages are meant for authors of hosts.
type program struct {
	cmd            *exec.Cmd
	stdout, stderr *os.File      // our ends; nil until it is started
	gone           chan struct{} // closed when the process has ended; then cmd.ProcessState is set

	mu     sync.Mutex // guards the fields below
	err    error      // of the start
	first  []byte     // the beginning of the first line on standard output
	whole  bool       // first is complete
	killed bool       // by us
}

var _ runner.Runner = (*program)(nil)

// Start starts the process. go-plugin calls it once.
func (p *program) Start(context.Context) error {
	err := p.start()
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	if err != nil {
		close(p.gone)
	}
	return err
}

func (p *program) start() error {
	stdout, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer outW.Close()
	stderr, errW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, stdout.Close())
	}
	defer errW.Close()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = nil, outW, errW
	p.cmd.Cancel = func() error {
		p.mu.Lock()
		p.killed = true
		p.mu.Unlock()
		return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // its children may hold the pipes
	}
	if err := p.cmd.Start(); err != nil {
		return errors.Join(err, stdout.Close(), stderr.Close())
	}
	p.stdout, p.stderr = stdout, stderr
	go func() {
		_ = p.cmd.Wait() // ProcessState has the result
		end := time.Now().Add(drainOutput)
		_ = p.stdout.SetReadDeadline(end)
		_ = p.stderr.SetReadDeadline(end)
		close(p.gone)
	}()
	return nil
}

// Wait returns when the process has exited.
func (p *program) Wait(context.Context) error {
	<-p.gone
	return errors.Join(p.stdout.Close(), p.stderr.Close()) // go-plugin has read them to the end
}

// Kill kills the process if it does not exit by itself at once.
func (p *program) Kill(context.Context) error {
	select {
	case <-p.gone:
		return nil
	case <-time.After(lastWords):
		return p.cmd.Cancel()
	}
}

// ID is never empty: go-plugin cleans up only after a runner that has an ID.
func (p *program) ID() string { return p.cmd.Path }

// Name returns the path.
func (p *program) Name() string { return p.cmd.Path }

// Stdout returns what the process prints on standard output, from the handshake on.
func (p *program) Stdout() io.ReadCloser { return noting{p} }

// Stderr returns what the process prints on standard error.
func (p *program) Stderr() io.ReadCloser { return p.stderr }

// Diagnose adds nothing; explain gives the better message.
func (p *program) Diagnose(context.Context) string { return "" }

// PluginToHost returns the address unchanged: both sides share one file system.
func (p *program) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin returns the address unchanged.
func (p *program) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// noting reads standard output and records the first line.
type noting struct{ *program }

func (n noting) Read(b []byte) (int, error) {
	read, err := n.stdout.Read(b)
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.whole {
		line, _, ended := bytes.Cut(b[:read], []byte("\n"))
		n.first = append(n.first, line[:min(len(line), shownLine-len(n.first))]...)
		n.whole = ended
	}
	return read, err
}

func (n noting) Close() error { return n.stdout.Close() }

var handshakeLine = regexp.MustCompile(`^(\d+)\|(\d+)\|(unix|tcp)\|[^|]+\|grpc\|`)

// duties tells what an executable must do to be a plugin.
const duties = "\na plugin prints one line on standard output before anything else, such as\n" +
	"  1|1|unix|/path/of/its/socket|grpc|CERTIFICATE\n" +
	"and serves gRPC on that socket until it is told to end. In Go, sdk.Serve does all of it (docs/write-a-handler.md);\n" +
	"for other languages see docs/plugins-in-other-languages.md"

// explain tells why the executable did not become a plugin, the most likely reason
// first. The process has exited.
func (p *program) explain(cause error, stderr string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := strings.ToValidUTF8(strings.TrimSpace(string(p.first)), "�")
	version := handshakeLine.FindStringSubmatch(line)
	switch {
	case errors.Is(p.err, syscall.ENOEXEC):
		return fmt.Errorf("%w: it was built for another kind of machine, or is a script without a first line like #!/bin/sh", p.err)
	case p.err != nil:
		return p.err
	case p.cmd.ProcessState == nil: // it was never executed
		return cause
	case version != nil && version[1] != "1":
		return fmt.Errorf("its handshake %q begins with version %s of go-plugin's protocol: want 1", line, version[1])
	case version != nil && version[2] != fmt.Sprint(wire.ProtocolVersion):
		return fmt.Errorf("its handshake %q chooses version %s of the contract: want one of those in PLUGIN_PROTOCOL_VERSIONS, which is %d", line, version[2], wire.ProtocolVersion)
	case version != nil:
		return cause
	case line != "":
		return fmt.Errorf("it is not a plugin: the first line it printed on standard output is %q, which is not a handshake:%s", line, duties)
	case p.killed && errors.Is(cause, context.DeadlineExceeded):
		return fmt.Errorf("it printed no handshake on standard output in time:%s", duties)
	case p.killed: // it would have continued
		return fmt.Errorf("it printed no handshake on standard output: %w%s", cause, duties)
	case strings.Contains(stderr, "This binary is a plugin"):
		return fmt.Errorf("it is a plugin for another product: it ended (%s) because that product's host did not start it; rebuild it with this SDK", p.cmd.ProcessState)
	default:
		return fmt.Errorf("it is not a plugin, or it cannot start: it ended (%s) without printing a handshake on standard output:%s", p.cmd.ProcessState, duties)
	}
}
