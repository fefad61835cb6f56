package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cgroupfs makes a directory that looks like the file system of control groups,
// in which the host's own group is /tasker, and the list that says so.
func cgroupfs(t *testing.T, controllers, on string) (root, own, base string) {
	t.Helper()
	root = t.TempDir()
	base = filepath.Join(root, "tasker")
	require.NoError(t, os.MkdirAll(base, 0o700))
	for name, text := range map[string]string{"cgroup.controllers": controllers, "cgroup.subtree_control": on, "cgroup.procs": ""} {
		require.NoError(t, os.WriteFile(filepath.Join(base, name), []byte(text+"\n"), 0o600))
	}
	own = filepath.Join(t.TempDir(), "cgroup")
	require.NoError(t, os.WriteFile(own, []byte("4:memory:/elsewhere\n0::/tasker\n"), 0o600))
	return root, own, base
}

func contents(t *testing.T, dir, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return strings.TrimSpace(string(raw))
}

var allLimits = Limits{Memory: 256 << 20, Processes: 64, CPUs: 0.5}

func TestGroupsOfADelegatedTree(t *testing.T) {
	t.Parallel()
	for _, on := range []string{"cpu io memory pids", ""} { // enabled before, or by the host
		root, own, base := cgroupfs(t, "cpuset cpu io memory pids", on)
		g := FindGroups(root, own)
		if on == "" {
			require.Equal(t, "+cpu +memory +pids", contents(t, base, "cgroup.subtree_control"))
		}
		require.Equal(t, "cgroup v2: memory 256 MiB, 64 processes, 0.5 CPUs", g.Report(allLimits, nil))
		require.Contains(t, g.Report(Limits{}, nil), "no other limit is set")
		require.Equal(t, "memory 256 MiB, 64 processes, 0.5 CPUs", g.Brief(allLimits, nil))
		require.Empty(t, g.Brief(Limits{}, nil))

		g.remove = os.RemoveAll // a real one has no files that must be removed
		made, err := g.make(allLimits)
		require.NoError(t, err)
		require.Equal(t, base, filepath.Dir(made.dir))
		require.Equal(t, "268435456", contents(t, made.dir, "memory.max"))
		require.Equal(t, "64", contents(t, made.dir, "pids.max"))
		require.Equal(t, "50000 100000", contents(t, made.dir, "cpu.max"))
		require.False(t, made.starved())
		require.NoError(t, os.WriteFile(filepath.Join(made.dir, "memory.events"), []byte("oom 1\noom_kill 1\n"), 0o600))
		require.True(t, made.starved())
		made.kill()
		require.Equal(t, "1", contents(t, made.dir, "cgroup.kill"))
		another, err := g.make(Limits{CPUs: 2})
		require.NoError(t, err)
		require.NotEqual(t, made.dir, another.dir)
		require.NoFileExists(t, filepath.Join(another.dir, "memory.max"))
		made.close()
		another.close()
		require.NoDirExists(t, made.dir)
		none, err := g.make(Limits{})
		require.NoError(t, err)
		require.Nil(t, none)
	}
}

// What cannot be enforced is reported, with the reason.
func TestGroupsReportWhatIsMissing(t *testing.T) {
	t.Parallel()
	root, own, base := cgroupfs(t, "cpu pids", "cpu pids")
	g := FindGroups(root, own)
	require.Equal(t, "cgroup v2: 64 processes, 0.5 CPUs; not enforced: memory (not in "+base+
		": memory); resident memory is watched: a process that exceeds 256 MiB is ended", g.Report(allLimits, nil))

	require.Equal(t, "memory 256 MiB, 64 processes, 0.5 CPUs (memory is watched)", g.Brief(allLimits, nil))
	require.Equal(t, "64 processes", g.Brief(Limits{Processes: 64}, nil))

	root, own, base = cgroupfs(t, "hugetlb", "")
	require.Equal(t, "memory 256 MiB, 64 processes, 0.5 CPUs (memory is watched; not enforced: max_processes, max_cpus)", FindGroups(root, own).Brief(allLimits, nil))
	require.Equal(t, "rlimits only (open files, no core dumps): not in "+base+": cpu memory pids", FindGroups(root, own).Report(Limits{CPUs: 1}, nil))

	_, own, _ = cgroupfs(t, "", "")
	nowhere := t.TempDir()
	require.Contains(t, FindGroups(nowhere, own).Report(allLimits, nil), "no control groups of version 2 in "+nowhere)
	require.Contains(t, FindGroups(nowhere, own).Report(allLimits, nil), "resident memory is watched")
	require.Contains(t, FindGroups(nowhere, "/nowhere").Report(allLimits, nil), "no control groups: open /nowhere")
	old := filepath.Join(t.TempDir(), "cgroup")
	require.NoError(t, os.WriteFile(old, []byte("4:memory:/x\n"), 0o600))
	require.Contains(t, FindGroups(nowhere, old).Report(allLimits, nil), "not in a control group of version 2")
}

// Groups of hosts that have ended are removed, those of others are not.
func TestGroupsAreSwept(t *testing.T) {
	t.Parallel()
	ended := exec.CommandContext(t.Context(), "true")
	require.NoError(t, ended.Run())
	root, own, base := cgroupfs(t, "cpu memory pids", "cpu memory pids")
	left := filepath.Join(base, groupPrefix+strconv.Itoa(ended.Process.Pid)+"-1")
	mine := filepath.Join(base, groupPrefix+strconv.Itoa(os.Getpid())+"-1")
	host := filepath.Join(base, hostPrefix+strconv.Itoa(ended.Process.Pid))
	for _, dir := range []string{left, mine, host} {
		require.NoError(t, os.Mkdir(dir, 0o700))
	}
	g := LookForGroups(root, own)
	g.remove = os.RemoveAll
	require.True(t, g.Enforces(allLimits))
	g.sweep()
	require.NoDirExists(t, left)
	require.NoDirExists(t, host)
	require.DirExists(t, mine)
}

// With this machine's own control groups, if it has any: a process is in its
// group, and so is what it starts, which dies with the group. Where the host
// may not create any, the report says so and processes start without them.
func TestGroupsOfThisMachine(t *testing.T) {
	t.Parallel()
	g := FindGroups("/sys/fs/cgroup", "/proc/self/cgroup")
	t.Log(g.Report(allLimits, nil))
	l := NewLauncher()
	defer l.Close()
	sink, _ := sink(LogLimits{}, nil)
	r := newRunner(Config{Name: "p", Path: "/bin/sh", Args: []string{"-c", "setsid sleep 20 & echo $!; wait"}, Limits: Limits{Processes: 100}, Groups: g, Log: sink.log, MaxFiles: 64}, l)
	r.dir = t.TempDir()
	require.NoError(t, r.Start(t.Context()))
	if r.group != nil {
		raw, err := os.ReadFile("/proc/" + r.ID() + "/cgroup")
		require.NoError(t, err)
		require.Contains(t, string(raw), filepath.Base(r.group.dir))
	} else {
		require.Contains(t, g.Report(Limits{Processes: 100}, nil), "rlimits only")
	}
	r.kill()
	<-r.exited
	if r.group != nil {
		require.NoDirExists(t, r.group.dir, "it is gone when all its processes are")
	}
}

func TestCPU(t *testing.T) {
	t.Parallel()
	used, ok := CPU(os.Getpid())
	require.True(t, ok)
	require.GreaterOrEqual(t, used, time.Duration(0))
	_, ok = CPU(1 << 30)
	require.False(t, ok)
}
