package pluginhost

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// A plugin sees only what it may see of the host's environment.
func TestEnvironmentIsClean(t *testing.T) { // not parallel: it sets variables
	t.Setenv("DATABASE_URL", "postgres://secret")
	t.Setenv("HTTP_PROXY", "http://proxy")
	chaos := spec("chaos", script(t, "sdk"))
	chaos.Env = []string{"HTTP_PROXY", "NOT_SET"}
	chaos.MemoryLimit, chaos.MaxProcs = 256<<20, 1
	b := started(t, nil, chaos)

	env := map[string]string{}
	for _, pair := range result[[]string](t, b.run(t, "chaos.env", "")) {
		k, v, _ := strings.Cut(pair, "=")
		env[k] = v
	}
	require.Equal(t, "http://proxy", env["HTTP_PROXY"])
	require.Equal(t, "268435456", env["GOMEMLIMIT"])
	require.Equal(t, "1", env["GOMAXPROCS"])
	require.DirExists(t, env["TMPDIR"])
	for k := range env {
		known := strings.HasPrefix(k, "PLUGIN_") || strings.HasPrefix(k, "TASKER_PLUGIN_")
		switch k {
		case "PATH", "LANG", "TMPDIR", "GOMEMLIMIT", "GOMAXPROCS", "HTTP_PROXY":
			known = true
		case "PWD", "OLDPWD", "SHLVL", "_": // set by the shell between the host and the plugin
			known = true
		}
		require.True(t, known, "the plugin sees %s", k)
	}
}

func TestBox(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")))

	limits := result[string](t, b.run(t, "chaos.proc", `"limits"`))
	require.Regexp(t, `Max open files +512 +512 `, limits)
	require.Regexp(t, `Max core file size +0 +0 `, limits)

	stat := result[string](t, b.run(t, "chaos.proc", `"stat"`))
	_, after, _ := strings.Cut(stat, ") ")
	require.Equal(t, fmt.Sprint(b.Status()[0].PID), strings.Fields(after)[2], "its own process group")

	fds := result[map[string]string](t, b.run(t, "chaos.fds", ""))
	require.Equal(t, "/dev/null", fds["0"])
	for fd, target := range fds {
		require.NotContains(t, target, b.cfg.StoreDir, "file descriptor %s is inherited", fd)
	}

	env := result[[]string](t, b.run(t, "chaos.env", ""))
	for _, pair := range env {
		if dir, ok := strings.CutPrefix(pair, "PLUGIN_UNIX_SOCKET_DIR="); ok {
			info, err := os.Stat(dir)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
			require.NoError(t, b.Stop(t.Context()))
			require.NoDirExists(t, dir)
			require.NoDirExists(t, filepath.Dir(dir))
		}
	}
}

// If the socket's path disappears, the connection stays.
func TestSocketIsRemovedByACleaner(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")))
	require.NoError(t, os.RemoveAll(b.now.runDir.Path()))
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", "1").Kind)
}

// A real binary with a known checksum is taken in and executed from the store.
func TestExecutableWithChecksum(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(source, []byte("package main\n\nimport \"os\"\n\nfunc main() { os.Stderr.WriteString(\"ran from \" + os.Args[0]); os.Exit(4) }\n"), 0o600))
	binary := filepath.Join(dir, "plugin")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, source)
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	content, err := os.ReadFile(binary)
	require.NoError(t, err)
	sum := sha256.Sum256(content)

	s := spec("bin", binary)
	s.SHA256 = strings.ToUpper(hex.EncodeToString(sum[:]))
	b := newBench(t, nil, s)
	err = b.Start(t.Context())
	require.ErrorContains(t, err, "exit code 4")
	require.ErrorContains(t, err, "ran from "+filepath.Join(b.cfg.StoreDir, hex.EncodeToString(sum[:])))
}

// While a file is being swapped all the time, the right one runs or the start is
// refused; the wrong one never runs.
func TestSwappedFileDoesNotRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ran := filepath.Join(dir, "wrong-one-ran")
	good := "#!/bin/sh\nexit 4\n" + strings.Repeat("# padding\n", 20_000)
	bad := "#!/bin/sh\necho >>" + ran + "\nexit 5\n" + strings.Repeat("# padding\n", 20_000)
	path := filepath.Join(dir, "plugin")
	put := func(content string) {
		require.NoError(t, os.WriteFile(path+".new", []byte(content), 0o700))
		require.NoError(t, os.Rename(path+".new", path))
	}
	put(good)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				put(bad)
				put(good)
			}
		}
	}()
	sum := sha256.Sum256([]byte(good))
	s := spec("swapped", path)
	s.SHA256 = hex.EncodeToString(sum[:])
	refused, right := 0, 0
	for range 30 {
		switch err := newBench(t, nil, s).Start(t.Context()); {
		case strings.Contains(err.Error(), "checksum mismatch"):
			refused++
		case strings.Contains(err.Error(), "exit code 4"):
			right++
		default:
			require.NoError(t, err)
		}
	}
	close(stop)
	<-stopped
	require.NoFileExists(t, ran)
	t.Logf("refused %d, right %d", refused, right)
}

// A restart runs the bytes that were taken in, whatever the file contains now.
func TestRestartRunsTheSameBytes(t *testing.T) {
	t.Parallel()
	path := script(t, "sdk")
	b := started(t, nil, spec("chaos", path))
	first := b.Status()[0]
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\nexit 66\n"), 0o600))
	require.Equal(t, ReasonCrashed, b.run(t, "chaos.crash", "").Failure.Code)
	s := b.serves(t, first.Generation)
	require.Equal(t, first.SHA256, s.SHA256)

	// A stored copy that was changed is not run, and neither is a source that has
	// changed since.
	require.NoError(t, os.Chmod(filepath.Join(b.cfg.StoreDir, first.SHA256), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(b.cfg.StoreDir, first.SHA256), []byte("#!/bin/sh\nexit 67\n"), 0o600))
	require.NoError(t, os.Chmod(path, 0o700))
	require.Equal(t, ReasonCrashed, b.run(t, "chaos.crash", "").Failure.Code)
	eventually(t, "it is refused", func() bool { return strings.Contains(b.Status()[0].LastError, "checksum mismatch") })
}

// If the host is killed, its plugins die with it, including those of another user.
func TestPluginsDieWithTheHost(t *testing.T) { // not parallel: it looks at the clock
	diesWithHost(t, "", nil)
	if mayBecomeOthers(t) { // TestAnotherUser covers the other case
		diesWithHost(t, "nobody", nil)
		diesWithHost(t, "nobody", &syscall.SysProcAttr{ // a host that is not root, but may start processes of others
			Credential:  &syscall.Credential{Uid: 4000000001, Gid: 4000000001},
			AmbientCaps: []uintptr{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_KILL},
		})
	}
}

func diesWithHost(t *testing.T, user string, as *syscall.SysProcAttr) {
	t.Helper()
	runDir := open(t)
	require.NoError(t, os.Chmod(runDir, 0o777|os.ModeSticky))
	const self = "/proc/self/exe" // other users may not have access to its path
	host := exec.CommandContext(t.Context(), self, "-test.run=^TestHelperHost$")
	host.Env = append(os.Environ(), "PLUGINHOST_HELPER="+script(t, "sdk"), "PLUGINHOST_HELPER_USER="+user, "TMPDIR="+runDir)
	host.SysProcAttr = as
	out, err := host.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, host.Start())
	lines := bufio.NewScanner(out)
	var pid int
	for pid == 0 && lines.Scan() {
		_, _ = fmt.Sscanf(lines.Text(), "plugin %d", &pid)
	}
	require.NotZero(t, pid, "the host did not start its plugin")
	require.False(t, dead(pid))
	if user != "" {
		about, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		require.NoError(t, err)
		require.Regexp(t, `(?m)^CapPrm:\s0+$`, string(about), "it inherits no rights")
		require.Regexp(t, `(?m)^CapAmb:\s0+$`, string(about))
		require.Regexp(t, `(?m)^Groups:\s*$`, string(about))
		require.NotRegexp(t, `(?m)^Uid:.*\b(0|4000000001)\b`, string(about))
	}

	require.NoError(t, host.Process.Kill())
	eventually(t, "the plugin dies", func() bool { return dead(pid) })
	_ = host.Wait()
}

// TestHelperHost is the host that is killed. Run by itself, it does nothing.
func TestHelperHost(t *testing.T) {
	path := os.Getenv("PLUGINHOST_HELPER")
	if path == "" {
		return
	}
	chaos := spec("chaos", path)
	chaos.User = os.Getenv("PLUGINHOST_HELPER_USER")
	b := started(t, nil, chaos)
	// Threads come and go: the plugin must survive that.
	for range 20 {
		done := make(chan struct{})
		go func() {
			runtime.LockOSThread() // the thread ends with the goroutine
			close(done)
		}()
		<-done
	}
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", "1").Kind)
	fmt.Printf("\nplugin %d\n", b.Status()[0].PID)
	select {}
}

// Two dozen starts and a dozen crashes leave no goroutine, file descriptor, process
// or file behind. Goroutines are checked by TestMain too.
func TestNothingLeaks(t *testing.T) { // not parallel: it counts what the process has
	runDir, err := os.MkdirTemp("/tmp", "ph")
	require.NoError(t, err)
	defer os.RemoveAll(runDir)
	b := newBench(t, func(c *Config) {
		c.RunDir = runDir
		c.Restart.Exits = 1 << 30
	}, spec("chaos", script(t, "sdk")))
	cycle := func(crashes int) {
		require.NoError(t, b.Start(t.Context()))
		for range crashes {
			generation := b.Status()[0].Generation
			require.Equal(t, ReasonCrashed, b.run(t, "chaos.crash", "").Failure.Code)
			b.serves(t, generation)
		}
		require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", "1").Kind)
		require.NoError(t, b.Stop(context.Background()))
	}
	cycle(1)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for range 24 {
		cycle(0)
	}
	cycle(12)
	const few = 8 // of the test itself; one leak per cycle makes three dozen
	eventually(t, "goroutines are as before", func() bool { return runtime.NumGoroutine() <= goroutines+few })
	eventually(t, "open files are as before", func() bool { return openFiles(t) <= files+few })
	left, err := os.ReadDir(runDir)
	require.NoError(t, err)
	require.Empty(t, left)
	stored, err := os.ReadDir(b.cfg.StoreDir)
	require.NoError(t, err)
	require.Len(t, stored, 1)
}

// A killed plugin cannot remove its socket: the host does so, and leaves nothing in
// its directory for temporary files.
func TestKilledPluginLeavesNoSocket(t *testing.T) {
	t.Parallel()
	runDir := open(t)
	b := started(t, func(c *Config) { c.RunDir = runDir }, spec("chaos", script(t, "sdk")))
	sockets := func() []string {
		found, err := filepath.Glob(filepath.Join(runDir, "*", "*", "plugin*"))
		require.NoError(t, err)
		return found
	}
	require.Len(t, sockets(), 1)
	first := b.Status()[0]
	require.NoError(t, syscall.Kill(first.PID, syscall.SIGKILL))
	b.serves(t, first.Generation)
	eventually(t, "the socket of the first is gone", func() bool { return len(sockets()) == 1 })
	require.NoError(t, syscall.Kill(b.Status()[0].PID, syscall.SIGKILL))
	require.NoError(t, b.Stop(t.Context()))
	left, err := os.ReadDir(runDir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func openFiles(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	b := started(t, nil, spec("chaos", script(t, "sdk")))
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", "1").Kind)
	families, err := b.reg.Gather()
	require.NoError(t, err)
	text, err := json.Marshal(families)
	require.NoError(t, err)
	for _, name := range []string{
		"tasker_plugin_calls_total", "tasker_plugin_call_seconds", "tasker_plugin_restarts_total", "tasker_plugin_in_flight",
		"tasker_plugin_log_lines_dropped_total", "tasker_plugin_outcomes_ignored_total", "tasker_plugin_state", "tasker_plugin_generation",
		"tasker_plugin_cpu_seconds_total", "tasker_plugin_resident_bytes",
	} {
		require.Contains(t, string(text), `"`+name+`"`)
	}
}

// A process that uses too much memory is ended, by the kernel if the host may
// create control groups, otherwise by the host. Another one takes its place.
func TestMemoryIsLimited(t *testing.T) {
	t.Parallel()
	one := spec("chaos", script(t, "sdk"))
	one.Limits.Memory = 150 << 20
	b := started(t, nil, one)
	first := b.Status()[0]
	require.Regexp(t, `^memory 150 MiB( \(memory is watched\))?$`, first.Limits)
	limits := b.explain(t).Generations[0].Limits
	if !strings.HasPrefix(limits, "cgroup v2: memory 150 MiB") {
		require.Regexp(t, "^rlimits only .*; resident memory is watched: a process that exceeds 150 MiB is ended$", limits)
	}
	require.Equal(t, ReasonCrashed, outcome(t, b.call("chaos.hog", nil)).Failure.Code)
	s := b.serves(t, first.Generation)
	require.Contains(t, s.LastError, "max_memory")
	require.Equal(t, vocab.OutcomeSuccess, b.run(t, "chaos.echo", "1").Kind)
	require.Contains(t, b.log.String(), "plugin limits")
}
