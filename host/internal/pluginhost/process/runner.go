package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"
	"golang.org/x/sys/unix"
)

const (
	maxHandshake = 16 << 10 // bytes of the handshake line
	// How long output is still read after the process has ended: something that left the
	// process group may hold the pipes open forever.
	drainOutput = 500 * time.Millisecond
)

var handshakeLine = regexp.MustCompile(`^\d+\|\d+\|(unix|tcp)\|[^|]+`)

var errStopped = errors.New("stopped before it was started")

// processRunner runs the process for go-plugin. It reads the real outputs itself and
// shows go-plugin only the handshake line, so that nothing which holds a pipe open can
// keep go-plugin from seeing the exit.
type processRunner struct {
	cfg      Config
	launcher *Launcher
	sink     *logSink

	env []string // set by prepare, before Start
	dir string

	handshakeR *io.PipeReader
	handshakeW *io.PipeWriter
	outputs    sync.WaitGroup // the readers of the two outputs
	gone       chan struct{}  // closed when the process has ended
	exited     chan struct{}  // closed when its last output has been read, too, and exit is set

	group *group // set by Start; nil: none

	mu      sync.Mutex // guards the fields below
	proc    *os.Process
	reaped  bool   // the process id may belong to another process by now
	asked   bool   // we ended it
	garbage string // what it printed instead of the handshake
	err     error  // of the start
	exit    Exit
}

var _ runner.Runner = (*processRunner)(nil)

func newRunner(cfg Config, l *Launcher) *processRunner {
	r := &processRunner{
		cfg: cfg, launcher: l,
		sink: newLogSink(cfg.Log, cfg.LogLimits, cfg.Dropped),
		gone: make(chan struct{}), exited: make(chan struct{}),
	}
	r.handshakeR, r.handshakeW = io.Pipe()
	return r
}

// prepare is go-plugin's RunnerFunc: cmd only carries the handshake's variables. It never
// fails: go-plugin would forget dir.
func (r *processRunner) prepare(cmd *exec.Cmd, dir string) {
	r.dir = dir
	r.env = environment(r.cfg, cmd.Env, dir)
}

// Start forks and executes. go-plugin calls it once.
func (r *processRunner) Start(context.Context) error {
	err := r.start()
	if err != nil {
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
		r.handshakeW.Close()
		close(r.gone)
		close(r.exited)
	}
	return err
}

func (r *processRunner) start() (err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer outW.Close()
	errR, errW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, outR.Close())
	}
	defer errW.Close()
	defer func() {
		if err != nil {
			outR.Close()
			errR.Close()
		}
	}()

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked {
		return errStopped
	}
	b, err := r.box(null, outW, errW)
	if err != nil {
		return err
	}
	defer b.close()
	proc, err := r.fork(b)
	if err != nil {
		return err
	}
	r.proc = proc
	r.limit()
	r.outputs.Go(func() { r.guardStdout(outR) })
	r.outputs.Go(func() { r.sink.stream("stderr", true).readFrom(bufio.NewReaderSize(errR, maxLogLine)) })
	go r.wait(outR, errR)
	return nil
}

// fork starts the process, in a control group if it is to have one. If that fails it is
// started without one, and the report of limits says why.
func (r *processRunner) fork(b *box) (*os.Process, error) {
	group, err := r.cfg.Groups.make(r.cfg.Limits)
	if err != nil {
		r.cfg.Log.Warn("the limits of a plugin are not enforced", "error", err)
	}
	attr := &os.ProcAttr{Dir: r.dir, Env: r.env, Files: b.files, Sys: &b.sys}
	argv := append([]string{r.cfg.Path}, r.cfg.Args...)
	if group != nil {
		b.sys.UseCgroupFD, b.sys.CgroupFD = true, int(group.handle.Fd())
		proc, err := r.launcher.start(b.path, argv, attr)
		if err == nil {
			r.group = group
			return proc, nil
		}
		group.close()
		r.cfg.Log.Warn("the limits of a plugin are not enforced: it cannot be started in a control group", "error", err)
	}
	b.sys.UseCgroupFD = false
	return r.launcher.start(b.path, argv, attr)
}

// limit limits open files and core dumps; it never raises a limit. It is not an error
// here if the plugin has ended meanwhile.
func (r *processRunner) limit() {
	if u := r.cfg.User; u != nil && u.Unlimited {
		return // the report of limits says so
	}
	for resource, n := range map[int]uint64{unix.RLIMIT_NOFILE: r.cfg.MaxFiles, unix.RLIMIT_CORE: 0} {
		var old unix.Rlimit
		err := unix.Prlimit(r.proc.Pid, resource, nil, &old)
		if err == nil {
			n = min(n, old.Max)
			err = unix.Prlimit(r.proc.Pid, resource, &unix.Rlimit{Cur: n, Max: n}, nil)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			r.cfg.Log.Warn("limit of a plugin process not set", "resource", resource, "error", err)
		}
	}
}

// wait waits for the process, kills what is left of its group, and records how it ended.
// The process stays a zombie until the group is killed, so that its number cannot belong
// to another process.
func (r *processRunner) wait(outputs ...*os.File) {
	for {
		err := unix.Waitid(unix.P_PID, r.proc.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	close(r.gone)
	r.mu.Lock()
	r.signalGroup()
	state, err := r.proc.Wait()
	r.reaped = true
	r.mu.Unlock()
	starved := r.group.starved()
	r.group.close()

	deadline := time.Now().Add(drainOutput)
	for _, f := range outputs {
		_ = f.SetReadDeadline(deadline)
	}
	r.outputs.Wait()
	for _, f := range outputs {
		_ = f.Close()
	}
	_ = r.handshakeW.Close()

	r.mu.Lock()
	r.exit = exitOf(state, err)
	r.exit.Asked, r.exit.Starved = r.asked, starved
	r.exit.Stderr = r.sink.stderrTail()
	r.mu.Unlock()
	close(r.exited)
}

func exitOf(state *os.ProcessState, err error) Exit {
	if err != nil {
		return Exit{Code: -1}
	}
	e := Exit{Code: state.ExitCode(), CPU: state.UserTime() + state.SystemTime()}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = ws.Signal()
	}
	if ru, ok := state.SysUsage().(*syscall.Rusage); ok {
		e.MaxRSS = ru.Maxrss << 10
	}
	return e
}

// guardStdout passes the handshake line on and logs the rest.
func (r *processRunner) guardStdout(f *os.File) {
	in := bufio.NewReaderSize(f, maxHandshake)
	line, err := in.ReadSlice('\n')
	if err != nil || !handshakeLine.Match(line) {
		r.refuse(line)
		return
	}
	// A copy: go-plugin reads it while the buffer is reused.
	go func(line string) {
		_, _ = io.WriteString(r.handshakeW, line)
		_ = r.handshakeW.Close()
	}(string(line))
	r.sink.stream("stdout", false).readFrom(in)
}

// refuse ends a process that printed something other than the handshake. If it printed
// nothing, its output has just ended.
func (r *processRunner) refuse(line []byte) {
	if len(line) > 0 {
		r.mu.Lock()
		r.garbage = printable(line[:min(len(line), tailBytes)])
		r.mu.Unlock()
		r.kill()
	}
	_ = r.handshakeW.CloseWithError(io.EOF)
}

// ask notes that the host is ending the process, so that its exit is not taken for a
// crash.
func (r *processRunner) ask() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = true
}

// kill ends the process and its group, or prevents it from being started.
func (r *processRunner) kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.reaped {
		r.asked = true
		r.signalGroup()
	}
}

// signalGroup kills the process, which may have left its group, and the group. The caller
// holds mu.
func (r *processRunner) signalGroup() {
	if r.proc != nil && !r.reaped {
		r.group.kill()
		_ = unix.Kill(r.proc.Pid, unix.SIGKILL)  // it may be a zombie
		_ = unix.Kill(-r.proc.Pid, unix.SIGKILL) // ESRCH: the whole group is gone
	}
}

// outcome returns how the process ended or why it did not start. It is complete
// once exited is closed.
func (r *processRunner) outcome() (ran bool, exit Exit, garbage string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proc != nil, r.exit, r.garbage, r.err
}

// Wait returns when the process has ended.
func (r *processRunner) Wait(context.Context) error {
	<-r.exited
	if ran, exit, _, err := r.outcome(); err != nil || !ran {
		return err
	} else if exit.Code != 0 {
		return fmt.Errorf("plugin process: %s", exit)
	}
	return nil
}

// Kill ends the process and its group.
func (r *processRunner) Kill(context.Context) error { r.kill(); return nil }

// Stdout returns the handshake line and then ends.
func (r *processRunner) Stdout() io.ReadCloser { return r.handshakeR }

// Stderr is empty: the host logs it without go-plugin.
func (r *processRunner) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name returns the plugin's name.
func (r *processRunner) Name() string { return r.cfg.Name }

// ID is never empty: go-plugin cleans up only after a runner with an ID.
func (r *processRunner) ID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proc == nil {
		return r.cfg.Name
	}
	return strconv.Itoa(r.proc.Pid)
}

// Diagnose adds nothing: [StartError] explains it better.
func (r *processRunner) Diagnose(context.Context) string { return "" }

// PluginToHost returns the address unchanged: both live in one file system.
func (r *processRunner) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

// HostToPlugin returns the address unchanged.
func (r *processRunner) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
