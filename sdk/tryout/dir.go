package tryout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	dirPrefix = "tasker-try-"
	lockName  = "lock"

	// The path of a socket has at most 103 bytes, on the system with the fewest.
	// go-plugin appends "/plugin-dir" and "/plugin", each with up to ten digits.
	maxParent = 103 - len("/"+dirPrefix+"4294967295/plugin-dir4294967295/plugin4294967295")

	// A directory this old without a live owner is left over: who makes one takes
	// the lock at once.
	staleAfter = 5 * time.Second
)

// workDir is a directory for the sockets of plugins that are tried out: private,
// and gone with the instance. A plugin that is killed cannot remove its socket.
type workDir struct {
	path string
	lock *os.File
}

// newWorkDir makes a directory in the system's for temporary files. Directories
// there whose owner was killed are removed: each holds a lock on its own, which
// the kernel drops with the process.
func newWorkDir() (*workDir, error) {
	parent := os.TempDir()
	if len(parent) > maxParent {
		parent = "/tmp"
	}
	sweep(parent)
	path, err := os.MkdirTemp(parent, dirPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the plugin's socket: %w", err)
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a directory for the plugin's socket: %w", err), os.RemoveAll(path))
	}
	return &workDir{path: path, lock: lock}, nil
}

// remove removes the directory and all that is in it. What cannot be removed is
// found again by the next.
func (d *workDir) remove() {
	_ = os.RemoveAll(d.path)
	_ = d.lock.Close()
}

func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweep removes directories without a live owner. It is best effort: what belongs
// to other users stays.
func sweep(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, dirPrefix+"*")) // the pattern is good
	for _, path := range dirs {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < staleAfter {
			continue
		}
		if lock, err := lockDir(path); err == nil {
			(&workDir{path: path, lock: lock}).remove()
		}
	}
}
