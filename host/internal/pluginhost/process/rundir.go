package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	runDirPrefix = "tasker-run-"
	lockName     = "lock"

	// The path of a socket has at most 107 bytes on Linux. go-plugin appends
	// "/plugin-dir" and "/plugin", each with up to ten digits.
	maxSocketPath = 107
	socketSuffix  = len("/plugin-dir4294967295/plugin4294967295")

	// A directory this old without a live owner is left over: a host locks its own
	// directory right after creating it.
	staleAfter = 5 * time.Second
)

// RunDir is a directory for the sockets of one host's plugins: private, with a short
// path, and removed with the host.
type RunDir struct {
	path string
	lock *os.File
}

// NewRunDir creates a directory below parent, or below the system's directory for
// temporary files if parent is empty. It removes directories there that belonged to
// killed hosts, and kills what their plugins left running; each host holds a lock on its
// own directory.
func NewRunDir(parent string) (*RunDir, error) {
	if parent == "" {
		if parent = os.TempDir(); tooLong(parent) {
			parent = "/tmp"
		}
	}
	parent, err := filepath.Abs(parent)
	if err != nil {
		return nil, fmt.Errorf("create run directory: %w", err)
	}
	if tooLong(parent) {
		return nil, fmt.Errorf("create run directory: %s is too long for the path of a socket: at most %d bytes", parent, maxSocketPath-socketSuffix-len(runDirPrefix)-11)
	}
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, fmt.Errorf("create run directory: %w", err)
	}
	sweepRunDirs(parent)
	path, err := os.MkdirTemp(parent, runDirPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("create run directory: %w", err)
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create run directory: %w", err), os.RemoveAll(path))
	}
	return &RunDir{path: path, lock: lock}, nil
}

// Path returns the directory.
func (d *RunDir) Path() string { return d.path }

// Remove removes the directory and everything in it.
func (d *RunDir) Remove() error {
	if err := errors.Join(os.RemoveAll(d.path), d.lock.Close()); err != nil {
		return fmt.Errorf("remove run directory: %w", err)
	}
	return nil
}

func tooLong(parent string) bool {
	return len(parent)+1+len(runDirPrefix)+10+socketSuffix > maxSocketPath
}

// lockDir takes the lock that tells other hosts that the directory is in use. The kernel
// releases it when the process ends.
func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweepRunDirs removes directories without a live owner. It is best effort: what belongs
// to other users stays.
func sweepRunDirs(parent string) {
	dirs, err := filepath.Glob(filepath.Join(parent, runDirPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < staleAfter {
			continue
		}
		if lock, err := lockDir(dir); err == nil {
			killUsersOf(dir)
			_ = os.RemoveAll(dir)
			_ = lock.Close()
		}
	}
}

// killUsersOf kills processes that have dir, or a directory in it, as their TMPDIR:
// children of a plugin that left its process group and so outlived it. The name of the
// directory is random and was given to nobody else. The process is held by a file
// descriptor while its environment is read, so that its number cannot belong to another
// process by the time it is killed.
func killUsersOf(dir string) {
	processes, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return
	}
	mark := []byte("\x00TMPDIR=" + dir)
	for _, path := range processes {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended
		}
		environ, err := os.ReadFile(path)
		_, after, found := bytes.Cut(append([]byte{0}, environ...), mark)
		if err == nil && found && (len(after) == 0 || after[0] == 0 || after[0] == '/') {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it may have ended
		}
		_ = unix.Close(fd)
	}
}
