package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/internal/leaks"
)

// patience bounds waits for what should happen soon, on a machine that is busy.
const patience = 120 * time.Second

// canary is the password in every database URL here; no log may show it.
const canary = "canary-7f3a9"

var (
	built  string // the directory of the executables: tasker, ledger, chaos, …
	starts = make(chan func())
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "tasker-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	built = dir
	if err := build(dir); err != nil {
		return 0, err
	}
	stop := startLauncher()
	code = m.Run()
	stop()
	if code == 0 {
		return code, leaks.Find()
	}
	return code, nil
}

// build makes the executables. A plugin's directory is its name. "tasker" is for
// commands, "host" for hosts: the same program, except that hosts run under the race
// detector if the tests do.
func build(dir string) error {
	const module = "github.com/tasker-systems/tasker-host/"
	tasker := []string{"-o", filepath.Join(dir, "tasker"), "-ldflags=-w", module + "host"}
	plugins := []string{
		"-o", dir + "/", "-ldflags=-w",
		module + "plugins/test/ledger", module + "plugins/test/chaos", module + "plugins/test/sway", module + "plugins/handlers/arithmetic", module + "plugins/handlers/fulfillment",
		module + "plugins/health/webhook",
	}
	next := []string{"-o", filepath.Join(dir, "next", "arithmetic"), "-ldflags=-w -X main.version=1.1.0", module + "plugins/handlers/arithmetic"}
	sway := []string{"-o", filepath.Join(dir, "next", "sway"), "-ldflags=-w -X main.version=2.0.0 -X main.size=11", module + "plugins/test/sway"}
	builds := [][]string{tasker, plugins, next, sway}
	if raced {
		builds = append(builds, []string{"-race", "-o", filepath.Join(dir, "host"), "-ldflags=-w", module + "host"})
	}
	for _, args := range builds {
		if out, err := exec.Command("go", append([]string{"build"}, args...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	if raced {
		return nil
	}
	return os.Link(filepath.Join(dir, "tasker"), filepath.Join(dir, "host"))
}

// startLauncher starts processes from one thread that lives as long as the
// tests: what they start dies with them, even if they are killed.
func startLauncher() (stop func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // the death signal comes when the thread ends, not the process
		for start := range starts {
			start()
		}
	})
	return func() { close(starts); wg.Wait() }
}

func launch(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	done := make(chan error)
	starts <- func() { done <- cmd.Start() }
	return <-done
}

// site is where a host lives: its directory, and what it is told.
type site struct {
	dir string
	env []string
}

// newSite makes a site with a short path, for the sake of its socket.
func newSite(t testing.TB, database string, more ...string) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	s := &site{dir: dir, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TASKER_ENV=test", "TASKER__SYSTEM__LOG_FORMAT=json",
		"TASKER__SYSTEM__STATE_DIR=" + filepath.Join(dir, "state"),
		"TASKER__SYSTEM__PLUGINS=" + filepath.Join(dir, "plugins.toml"),
		"GORACE=halt_on_error=1", "NO_COLOR=1",
	}}
	if database != "" {
		s.env = append(s.env, "DATABASE_URL="+database)
	}
	s.env = append(s.env, more...)
	s.plugins(t, "")
	return s
}

// plugins writes the site's plugins.toml.
func (s *site) plugins(t testing.TB, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "plugins.toml"), []byte(text), 0o600))
}

func (s *site) socket() string { return filepath.Join(s.dir, "state", "tasker.sock") }

func (s *site) client(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{Socket: s.socket()})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// output collects what a process says.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// host is a running `tasker up`.
type host struct {
	*client.Client
	site   *site
	cmd    *exec.Cmd
	log    *output
	exited chan struct{}
}

// start runs `tasker up` and returns at once.
func (s *site) start(t testing.TB, args ...string) *host {
	t.Helper()
	h := &host{Client: s.client(t), site: s, log: &output{}, exited: make(chan struct{})}
	h.cmd = exec.Command(filepath.Join(built, "host"), append([]string{"up"}, args...)...)
	h.cmd.Env, h.cmd.Dir, h.cmd.Stdout, h.cmd.Stderr = s.env, s.dir, h.log, h.log
	h.cmd.WaitDelay = 5 * time.Second
	require.NoError(t, launch(h.cmd))
	go func() { _ = h.cmd.Wait(); close(h.exited) }()
	t.Cleanup(func() {
		h.kill(t)
		if t.Failed() {
			t.Logf("the last words of the host in %s:\n%s", s.dir, tail(h.log.String(), 4000))
		}
	})
	return h
}

// up runs `tasker up` until it is ready.
func (s *site) up(t testing.TB, args ...string) *host {
	t.Helper()
	h := s.start(t, args...)
	h.awaitReady(t)
	return h
}

func (h *host) awaitReady(t testing.TB) {
	t.Helper()
	eventually(t, patience, "the host is ready", func() bool {
		select {
		case <-h.exited:
			t.Fatalf("the host has ended:\n%s", tail(h.log.String(), 4000))
		default:
		}
		answer, err := h.Ready(t.Context())
		return err == nil && answer.Status == "ok"
	})
}

func (h *host) pid() int { return h.cmd.Process.Pid }

// kill ends the process at once, and waits for its end.
func (h *host) kill(t testing.TB) {
	t.Helper()
	select {
	case <-h.exited:
		return
	default:
	}
	_ = h.cmd.Process.Kill()
	h.await(t)
}

func (h *host) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	require.NoError(t, h.cmd.Process.Signal(s))
}

// await waits for the end of the process and returns its exit code.
func (h *host) await(t testing.TB) int {
	t.Helper()
	select {
	case <-h.exited:
	case <-time.After(patience):
		t.Fatalf("the host does not end:\n%s", tail(h.log.String(), 4000))
	}
	return h.cmd.ProcessState.ExitCode()
}

// stop ends the host in good order.
func (h *host) stop(t testing.TB) {
	t.Helper()
	h.signal(t, syscall.SIGTERM)
	require.Zero(t, h.await(t), tail(h.log.String(), 4000))
}

// result is what a command printed, and its exit code.
type result struct {
	code     int
	out, err string
}

// tasker runs a command of the command line as a user of the site would.
func (s *site) tasker(t testing.TB, args ...string) result {
	t.Helper()
	return s.taskerIn(t, "", args...)
}

func (s *site) taskerIn(t testing.TB, input string, args ...string) result {
	t.Helper()
	return s.run(t, patience, input, args...)
}

// taskerWithin runs a command that may take longer.
func (s *site) taskerWithin(t testing.TB, within time.Duration, args ...string) result {
	t.Helper()
	return s.run(t, within, "", args...)
}

func (s *site) run(t testing.TB, within time.Duration, input string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	r, err := s.command(ctx, input, args...)
	require.NoError(t, err)
	return r
}

// command runs a command beside the test, whose errors are its caller's.
func (s *site) command(ctx context.Context, input string, args ...string) (result, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(built, "tasker"), args...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = s.env, s.dir, strings.NewReader(input), &out, &errs
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return result{}, fmt.Errorf("tasker %s: %w", strings.Join(args, " "), err)
	}
	return result{code: cmd.ProcessState.ExitCode(), out: out.String(), err: errs.String()}, nil
}

// write makes a file of the site and returns its path.
func (s *site) write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// eventually waits until a condition holds.
func eventually(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	require.True(t, poll(t.Context(), within, holds), "not within %s: %s", within, what)
}

// poll looks at a condition again and again, and reports whether it came to
// hold in time.
func poll(ctx context.Context, within time.Duration, holds func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(within)
	defer end.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-end.C:
			return holds()
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// processesOf returns the living processes whose executable lies below a
// directory, by pid.
func processesOf(t testing.TB, dir string) map[int]string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	require.NoError(t, err)
	found := map[int]string{}
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(exe, dir+"/") {
			continue // another user's, or gone
		}
		var pid int
		if _, err := fmt.Sscanf(link, "/proc/%d/exe", &pid); err == nil {
			found[pid] = exe
		}
	}
	return found
}

// zombiesOf counts the dead children that a process has not buried.
func zombiesOf(t testing.TB, pid int) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	n := 0
	for _, path := range stats {
		src, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var state string
		var parent int
		_, rest, _ := strings.Cut(string(src), ") ")
		if _, err := fmt.Sscan(rest, &state, &parent); err == nil && parent == pid && state == "Z" {
			n++
		}
	}
	return n
}
