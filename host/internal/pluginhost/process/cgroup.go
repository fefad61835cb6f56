package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/runas"
)

// Limits bound what a process and everything it starts may use; 0: unlimited.
type Limits struct {
	Memory    int64   // bytes
	Processes int     // including threads
	CPUs      float64 // processors; 0.5 is half of one
}

// Any reports whether there is any limit.
func (l Limits) Any() bool { return l != Limits{} }

// String lists the limits.
func (l Limits) String() string {
	var all []string
	if l.Memory > 0 {
		all = append(all, fmt.Sprintf("memory %d MiB", l.Memory>>20))
	}
	if l.Processes > 0 {
		all = append(all, fmt.Sprintf("%d processes", l.Processes))
	}
	if l.CPUs > 0 {
		all = append(all, fmt.Sprintf("%g CPUs", l.CPUs))
	}
	return strings.Join(all, ", ")
}

// without returns the limits that controllers can enforce, and the names of those
// that are missing.
func (l Limits) without(controllers []string) (left Limits, missing []string) {
	left = l
	if l.Memory > 0 && !slices.Contains(controllers, "memory") {
		left.Memory, missing = 0, append(missing, "memory")
	}
	if l.Processes > 0 && !slices.Contains(controllers, "pids") {
		left.Processes, missing = 0, append(missing, "pids")
	}
	if l.CPUs > 0 && !slices.Contains(controllers, "cpu") {
		left.CPUs, missing = 0, append(missing, "cpu")
	}
	return left, missing
}

// The names of groups: for a process, with the host's process id, and for the host
// itself.
const (
	groupPrefix = "tasker-plugin-"
	hostPrefix  = "tasker-host-"
)

// Groups creates control groups (version 2) for processes below the host's own group. It
// is safe for concurrent use.
type Groups struct {
	base        string // the host's own; empty: it cannot create any
	controllers []string
	why         string // why there are none, or controllers are missing
	remove      func(string) error

	mu   sync.Mutex // guards next
	next int
}

// FindGroups determines what the host may do, from the file system of control groups,
// /sys/fs/cgroup, and the list of the host's own, /proc/self/cgroup. It ends and removes
// what dead hosts left there. If controllers must be enabled, the host moves into a group
// beside those of its processes, as the kernel requires.
func FindGroups(root, own string) *Groups {
	g := LookForGroups(root, own)
	if g.base == "" {
		return g
	}
	g.sweep()
	probe := filepath.Join(g.base, groupPrefix+strconv.Itoa(os.Getpid())+"-probe")
	if err := os.Mkdir(probe, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		g.base, g.controllers, g.why = "", nil, fmt.Sprintf("the host may not create control groups: %v (delegate a subtree: systemd's Delegate=yes)", err)
		return g
	}
	_ = g.remove(probe)
	g.enable()
	return g
}

// LookForGroups is like FindGroups, but changes nothing, so it cannot tell whether the
// host is allowed to use what it finds.
func LookForGroups(root, own string) *Groups {
	g := &Groups{remove: syscall.Rmdir}
	if g.why = g.find(root, own); g.why != "" {
		return g
	}
	there := g.controllers
	g.controllers = nil
	var missing []string
	for _, c := range []string{"cpu", "memory", "pids"} {
		if slices.Contains(there, c) {
			g.controllers = append(g.controllers, c)
		} else {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		g.why = "not in " + g.base + ": " + strings.Join(missing, " ")
	}
	return g
}

// Enforces reports whether all of the limits can be enforced.
func (g *Groups) Enforces(l Limits) bool {
	_, missing := l.without(g.controllers)
	return len(missing) == 0
}

// find finds the host's own group. It returns why there is none.
func (g *Groups) find(root, own string) string {
	raw, err := os.ReadFile(own)
	if err != nil {
		return fmt.Sprintf("no control groups: %v", err)
	}
	path, found := "", false
	for line := range strings.Lines(string(raw)) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			path, found = p, true
		}
	}
	if !found {
		return "the host is not in a control group of version 2"
	}
	for _, mount := range []string{root, filepath.Join(root, "unified")} {
		base := filepath.Join(mount, path)
		raw, err := os.ReadFile(filepath.Join(base, "cgroup.controllers"))
		if err == nil {
			g.base, g.controllers = base, strings.Fields(string(raw))
			return ""
		}
	}
	return "no control groups of version 2 in " + root
}

// enable enables the controllers for groups below the host's own.
func (g *Groups) enable() {
	wanted := g.controllers
	on := func() bool {
		raw, _ := os.ReadFile(filepath.Join(g.base, "cgroup.subtree_control"))
		return !slices.ContainsFunc(wanted, func(c string) bool { return !slices.Contains(strings.Fields(string(raw)), c) })
	}
	if on() {
		return
	}
	turnOn := func() error {
		return os.WriteFile(filepath.Join(g.base, "cgroup.subtree_control"), []byte("+"+strings.Join(wanted, " +")), 0o644)
	}
	err := turnOn()
	if errors.Is(err, unix.EBUSY) { // a group that contains processes cannot have controllers for those below
		pid := []byte(strconv.Itoa(os.Getpid()))
		leaf := filepath.Join(g.base, hostPrefix+string(pid))
		if err = os.Mkdir(leaf, 0o755); err == nil {
			err = os.WriteFile(filepath.Join(leaf, "cgroup.procs"), pid, 0o644)
		}
		if err == nil {
			err = turnOn()
		}
		if err != nil { // other processes are in it, too
			_ = os.WriteFile(filepath.Join(g.base, "cgroup.procs"), pid, 0o644)
			_ = g.remove(leaf)
		}
	}
	if err != nil {
		g.controllers = nil
		g.why = fmt.Sprintf("controllers cannot be enabled in %s: %v (delegate a subtree to the host alone: systemd's Delegate=yes)", g.base, err)
	}
}

// sweep ends what dead hosts left behind.
func (g *Groups) sweep() {
	left, _ := filepath.Glob(filepath.Join(g.base, groupPrefix+"*"))
	hosts, _ := filepath.Glob(filepath.Join(g.base, hostPrefix+"*"))
	for _, dir := range append(left, hosts...) {
		name := strings.TrimPrefix(strings.TrimPrefix(filepath.Base(dir), groupPrefix), hostPrefix)
		pid, _, _ := strings.Cut(name, "-")
		if n, err := strconv.Atoi(pid); err == nil && !errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			continue
		}
		(&group{dir: dir, remove: g.remove}).close()
	}
}

// Report describes how limits are enforced on a process of a user; nil: the host's.
func (g *Groups) Report(l Limits, u *runas.User) string {
	const rlimits = "rlimits only (open files, no core dumps)"
	switch {
	case u == nil:
		return g.report(l, rlimits)
	case u.Unlimited:
		return u.Report() + "; " + g.report(l, "no rlimits, because the host lacks CAP_SYS_RESOURCE")
	}
	return u.Report() + "; " + g.report(l, rlimits)
}

func (g *Groups) report(l Limits, rlimits string) string {
	if !l.Any() {
		return rlimits + ": no other limit is set"
	}
	left, missing := l.without(g.controllers)
	var s string
	switch {
	case g.base == "" || !left.Any():
		s = rlimits + ": " + g.why
	case len(missing) == 0:
		return "cgroup v2: " + left.String()
	default:
		s = fmt.Sprintf("cgroup v2: %s; not enforced: %s (%s)", left, strings.Join(missing, ", "), g.why)
	}
	if slices.Contains(missing, "memory") || g.base == "" && l.Memory > 0 {
		s += fmt.Sprintf("; resident memory is watched: a process that exceeds %d MiB is ended", l.Memory>>20)
	}
	return s
}

// Brief is a short form of Report, for a table: the user, the limits, and which of them
// are not enforced. Empty: there are none, and the user is the host's.
func (g *Groups) Brief(l Limits, u *runas.User) string {
	limits := l.String()
	_, missing := l.without(g.controllers)
	var notes []string
	if i := slices.Index(missing, "memory"); i >= 0 {
		missing, notes = slices.Delete(missing, i, i+1), append(notes, "memory is watched")
	}
	if len(missing) > 0 {
		settings := strings.NewReplacer("pids", "max_processes", "cpu", "max_cpus")
		notes = append(notes, "not enforced: "+settings.Replace(strings.Join(missing, ", ")))
	}
	if len(notes) > 0 {
		limits += " (" + strings.Join(notes, "; ") + ")"
	}
	switch {
	case u == nil:
		return limits
	case limits == "":
		return u.String()
	}
	return u.String() + ", " + limits
}

// group is the control group of one process. A nil group does nothing.
type group struct {
	dir    string
	handle *os.File
	remove func(string) error
}

// make creates a group with the limits that can be enforced; nil if the host cannot
// create any.
func (g *Groups) make(l Limits) (*group, error) {
	if g == nil || g.base == "" || !l.Any() {
		return nil, nil
	}
	g.mu.Lock()
	g.next++
	dir := filepath.Join(g.base, fmt.Sprintf("%s%d-%d", groupPrefix, os.Getpid(), g.next))
	g.mu.Unlock()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create a control group: %w", err)
	}
	made := &group{dir: dir, remove: g.remove}
	l, _ = l.without(g.controllers)
	var errs []error
	set := func(file, value string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("limit a control group: %w", err))
		}
	}
	if l.Memory > 0 {
		set("memory.max", strconv.FormatInt(l.Memory, 10))
		_ = os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0o644) // exists if there is swap
	}
	if l.Processes > 0 {
		set("pids.max", strconv.Itoa(l.Processes))
	}
	if l.CPUs > 0 {
		const period = 100_000 // microseconds
		set("cpu.max", fmt.Sprintf("%d %d", max(1000, int64(l.CPUs*period)), period))
	}
	var err error
	if made.handle, err = os.Open(dir); err != nil {
		errs = append(errs, fmt.Errorf("open a control group: %w", err))
	}
	if len(errs) > 0 {
		made.close()
		return nil, errors.Join(errs...)
	}
	return made, nil
}

// kill ends all processes of the group, even those that have left the process group.
func (g *group) kill() {
	if g != nil {
		_ = os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0o644)
	}
}

// starved reports whether the kernel killed one of its processes for memory.
func (g *group) starved() bool {
	if g == nil {
		return false
	}
	raw, _ := os.ReadFile(filepath.Join(g.dir, "memory.events"))
	for line := range strings.Lines(string(raw)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}

// close ends the group and removes it.
func (g *group) close() {
	if g == nil {
		return
	}
	if g.handle != nil {
		_ = g.handle.Close()
	}
	for range 50 { // the kernel takes a moment to remove them
		g.kill()
		if err := g.remove(g.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
}
