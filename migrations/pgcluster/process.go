package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pollExit is how often we check whether a server that is not our child is alive.
const pollExit = 100 * time.Millisecond

// process is a running postmaster.
type process struct {
	pid  int
	done chan struct{} // closed when it has exited
	err  error         // why it exited; read after done
	quit context.CancelFunc
}

// startChild starts the server as our child and waits for it in a goroutine.
// That goroutine keeps its thread, because the kernel sends the parent-death
// signal, which ephemeral servers use, when the thread that forked the child ends.
func startChild(cmd *exec.Cmd) (*process, error) {
	p := &process{done: make(chan struct{}), quit: func() {}}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, <-started
}

// startDetached starts the server so that nothing of ours waits for it.
func startDetached(cmd *exec.Cmd) (*process, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	if err := cmd.Process.Release(); err != nil {
		return nil, err
	}
	return watch(pid), nil
}

// watch follows a server that is not our child.
func watch(pid int) *process {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{pid: pid, done: make(chan struct{}), quit: cancel}
	go func() {
		tick := time.NewTicker(pollExit)
		defer tick.Stop()
		for alive(pid) {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		close(p.done)
	}()
	return p
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// signal sends a signal to a server that has not exited.
func (p *process) signal(sig syscall.Signal) error {
	if p.exited() {
		return nil
	}
	if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

// alive reports whether a process runs. A process that has ended but that nobody
// has reaped, as happens to orphans in containers, does not.
func alive(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) || runtime.GOOS != "linux"
	}
	_, after, ok := strings.Cut(string(stat), ") ")
	return !ok || !strings.HasPrefix(after, "Z")
}

// postmaster is what a server says about itself in postmaster.pid.
type postmaster struct {
	pid int
	run string // the directory of its socket; empty while it starts
}

// livePostmaster finds the server that runs on the data directory. A pid file may
// have outlived its server, and the process number in it may belong to another
// process by now. So the server is recognized by its command line, which names
// its data directory.
func livePostmaster(data string) (postmaster, bool, error) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return postmaster{}, false, nil
	}
	if err != nil {
		return postmaster{}, false, err
	}
	lines := strings.Split(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || !alive(pid) || !serves(pid, data) {
		return postmaster{}, false, nil
	}
	p := postmaster{pid: pid}
	if len(lines) > 5 { // the line is complete
		p.run = lines[4]
	}
	return p, true, nil
}

// serves reports whether a process is a server on that data directory.
func serves(pid int, data string) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return runtime.GOOS != "linux"
	}
	args := strings.Split(string(cmdline), "\x00")
	i := slices.Index(args, "-D")
	return i > 0 && i+1 < len(args) && args[i+1] == data && filepath.Base(args[0]) == "postgres"
}
