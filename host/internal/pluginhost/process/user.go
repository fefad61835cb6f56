package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/runas"
)

// box is how a process is started, apart from its control group.
type box struct {
	path  string // what to execute
	sys   syscall.SysProcAttr
	files []*os.File // its first file descriptors
}

// close closes what is only needed for the start.
func (b *box) close() {
	for _, f := range b.files[3:] {
		_ = f.Close()
	}
}

// box prepares what a process needs besides its environment; standard input and two
// outputs are given.
//
// A process of another user becomes the owner of its directory and its outputs. As it
// cannot enter the store, it gets its executable as an open file, and executes that. The
// kernel allows this if the file's mode does, and the directories around the file keep
// everybody else out.
func (r *processRunner) box(files ...*os.File) (*box, error) {
	b := &box{path: r.cfg.Path, files: files, sys: syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}}
	u := r.cfg.User
	if u == nil {
		return b, nil
	}
	if err := r.admit(*u, files[1:]...); err != nil {
		return nil, fmt.Errorf("run it as %s: %w", u.Name, err)
	}
	exe, err := os.Open(r.cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("run it as %s: %w", u.Name, err)
	}
	if err := exe.Chmod(0o555); err != nil {
		return nil, errors.Join(fmt.Errorf("run it as %s: %w", u.Name, err), exe.Close())
	}
	b.path, b.files = fmt.Sprintf("/proc/self/fd/%d", len(files)), append(slices.Clone(files), exe)
	b.sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID} // without supplementary groups
	return b, nil
}

// admit gives a user the directory of its process, which stays closed to everyone else
// but root, and its outputs, which it may reopen by name.
func (r *processRunner) admit(u runas.User, outputs ...*os.File) error {
	if err := os.Chmod(r.cfg.RunDir, 0o711); err != nil { // its contents are closed to others
		return err
	}
	if dir := barrier(filepath.Dir(r.cfg.RunDir), u); dir != "" {
		return fmt.Errorf("it has no access to %s, which contains its private directory: chmod o+x %s, or set TMPDIR to another directory for temporary files", dir, dir)
	}
	errs := []error{os.Chown(r.dir, int(u.UID), int(u.GID))}
	for _, f := range outputs {
		errs = append(errs, f.Chown(int(u.UID), int(u.GID)))
	}
	return errors.Join(errs...)
}

// barrier returns the directory on the way to dir that a user may not enter; empty: there
// is none. Anything other than modes is left to the kernel.
func barrier(dir string, u runas.User) string {
	var on string
	if dir != "/" && dir != "." {
		on = barrier(filepath.Dir(dir), u)
	}
	if on != "" {
		return on
	}
	info, err := os.Stat(dir)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	enter := os.FileMode(0o001)
	switch {
	case !ok:
		return ""
	case st.Uid == u.UID:
		enter = 0o100
	case st.Gid == u.GID:
		enter = 0o010
	}
	if u.UID != 0 && info.Mode().Perm()&enter == 0 {
		return dir
	}
	return ""
}
