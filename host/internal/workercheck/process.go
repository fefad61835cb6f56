package workercheck

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is the worker's process. It leads a process group, so that the check can end
// it with all its children.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	result error
	output tail
}

// start starts the worker unless it runs.
func (b *trial) start() error {
	if b.cmd != nil && b.ended() == "" {
		return nil
	}
	b.kill()
	p := &b.process
	p.output.clear()
	p.cmd = exec.Command(b.Command[0], b.Command[1:]...)
	p.cmd.Env = append(os.Environ(), "DATABASE_URL="+b.Database, "TASKER_NAMESPACE="+Namespace, "TASKER_WORKER="+workerName,
		"TASKER_LEASE="+strconv.Itoa(int(lease.Seconds())))
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return fmt.Errorf("start the worker: %w", err)
	}
	p.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		p.result = cmd.Wait()
		close(exited)
	}(p.cmd, p.exited)
	return nil
}

// ended says how the worker exited, if it has.
func (p *process) ended() string {
	select {
	case <-p.exited:
		how := "the worker exited on its own"
		if p.result != nil {
			how += " with " + p.result.Error()
		}
		if words := p.output.String(); words != "" {
			how += ": " + words
		}
		return how
	default:
		return ""
	}
}

func (p *process) terminate() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM) }

func (p *process) exits(within time.Duration) bool {
	select {
	case <-p.exited:
		return true
	case <-time.After(within):
		return false
	}
}

// kill ends the worker and everything it started.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
	p.cmd = nil
}

// tail keeps the end of the worker's output.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailBytes = 2000

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > tailBytes {
		t.text = bytes.Clone(t.text[len(t.text)-tailBytes:])
	}
	return len(p), nil
}

func (t *tail) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = nil
}

// String returns the last lines.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(t.text), "?")), "\n")
	return strings.Join(lines[max(len(lines)-5, 0):], " / ")
}
