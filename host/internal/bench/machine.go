package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// What the operating system reports about processes and itself, from /proc. What
// cannot be read counts as zero: a server elsewhere has no process here.

const microsecondsPerTick = 1e6 / 100 // the kernel shows times in hundredths of a second on all our platforms

// ownCPU returns the microseconds of CPU that this process has used.
func ownCPU() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3
}

type process struct {
	parent     int
	name       string
	own, ended float64 // microseconds; ended are those of its children that have ended
}

func readProcess(pid int) (p process, ok bool) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return p, false
	}
	// pid (name) state ppid …: the name may contain anything.
	open, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if open < 0 || end < open {
		return p, false
	}
	fields := strings.Fields(string(raw[end+1:]))
	const parent, user, system, childUser, childSystem = 1, 11, 12, 13, 14
	if len(fields) <= childSystem {
		return p, false
	}
	at := func(i int) float64 { v, _ := strconv.ParseFloat(fields[i], 64); return v * microsecondsPerTick }
	p.name = string(raw[open+1 : end])
	p.parent, _ = strconv.Atoi(fields[parent])
	p.own, p.ended = at(user)+at(system), at(childUser)+at(childSystem)
	return p, true
}

// cpuOf returns the microseconds that a process has used.
func cpuOf(pid int) float64 {
	p, _ := readProcess(pid)
	return p.own
}

// familyCPU returns the microseconds that all processes of a server have used,
// including those that have ended, given one of its backends.
func familyCPU(backend int) float64 {
	b, ok := readProcess(backend)
	if !ok || !strings.HasPrefix(b.name, "postgres") {
		return 0
	}
	server, ok := readProcess(b.parent)
	if !ok {
		return 0
	}
	sum := server.own + server.ended
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if p, ok := readProcess(pid); ok && p.parent == b.parent {
				sum += p.own
			}
		}
	}
	return sum
}

func cpuModel() string { return lineOf("/proc/cpuinfo", "model name") }

func memoryBytes() int64 { return bytesOf("/proc/meminfo", "MemTotal") }

// peakMemory is the peak physical memory of this process.
func peakMemory() int64 { return bytesOf("/proc/self/status", "VmHWM") }

// peakMemoryOf is the peak physical memory of a process, residentMemory what it has
// now.
func peakMemoryOf(pid int) int64 { return bytesOf(fmt.Sprintf("/proc/%d/status", pid), "VmHWM") }

func residentMemory(pid int) int64 { return bytesOf(fmt.Sprintf("/proc/%d/status", pid), "VmRSS") }

// bytesOf returns the value of a line in kilobytes; 0 if there is none.
func bytesOf(path, key string) int64 {
	kib, _ := strconv.ParseInt(strings.TrimSuffix(lineOf(path, key), " kB"), 10, 64)
	return kib << 10
}

// lineOf returns what follows a key and a colon in a file.
func lineOf(path, key string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
