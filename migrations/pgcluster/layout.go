package pgcluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	// rootStateDir is suggested to users who have chosen an unsuitable directory. It
	// is the default for root (package config).
	rootStateDir = "/var/lib/tasker/postgres"

	// superuser is the database role that owns everything in the cluster.
	superuser = "tasker"

	// maxSocketPath leaves room below the 108 bytes of a socket's address.
	maxSocketPath = 100
	socketName    = ".s.PGSQL.5432"
)

// ErrLocked says that another process manages the cluster of that directory.
var ErrLocked = errors.New("the private PostgreSQL is in use")

// layout is the set of paths of one cluster.
type layout struct {
	dir, data, run string
}

func newLayout(dir string) (layout, error) {
	if dir == "" {
		return layout{}, errors.New("no state directory given")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return layout{}, err
	}
	l := layout{dir: dir, data: filepath.Join(dir, "data"), run: filepath.Join(dir, "run")}
	if len(filepath.Join(l.run, socketName)) > maxSocketPath {
		sum := sha256.Sum256([]byte(dir))
		l.run = filepath.Join("/tmp", fmt.Sprintf("tasker-pg-run-%d-%x", os.Geteuid(), sum[:6]))
	}
	return l, nil
}

// prepare creates the state directory and takes its lock, which is held as long as
// the returned file is open.
func (l layout) prepare(a account) (*os.File, error) {
	if err := a.makeParents(filepath.Dir(l.dir)); err != nil {
		return nil, err
	}
	switch err := os.Mkdir(l.dir, 0o700); {
	case errors.Is(err, fs.ErrExist):
		if err := l.recognize(); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	lock, err := l.lock()
	if err != nil {
		return nil, err
	}
	err = a.reaches(l.dir)
	for _, dir := range []string{l.dir, l.run} {
		if err == nil {
			err = makePrivate(dir, a)
		}
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// recognize refuses a directory that is used for something else, since we are about
// to take it over.
func (l layout) recognize() error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	ours := len(entries) == 0
	for _, e := range entries {
		ours = ours || e.Name() == "lock"
	}
	if !ours {
		return fmt.Errorf("%s holds other files: a private PostgreSQL needs a directory of its own", l.dir)
	}
	return nil
}

// makePrivate creates a directory, or checks that an existing one is a directory
// of ours, and gives it to the server's account. The check matters in /tmp.
func makePrivate(dir string, a account) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || (st.Uid != a.uid && int(st.Uid) != os.Geteuid()) {
		return fmt.Errorf("%s belongs to another user", dir)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	return a.own(dir)
}

func (l layout) lock() (*os.File, error) {
	path := filepath.Join(l.dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, readErr := os.ReadFile(path)
		closeErr := f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: process %s manages %s", ErrLocked, strings.TrimSpace(string(holder)), l.dir)
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), readErr, closeErr)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// dataMajor is the major version of existing data; 0 if there is none.
func (l layout) dataMajor() (int, error) {
	text, err := os.ReadFile(filepath.Join(l.data, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", filepath.Join(l.data, "PG_VERSION"), err)
	}
	return major, nil
}

// initialize creates the data directory. It works beside the final place and moves
// the result there, so that an interrupted run leaves nothing that looks usable.
func (l layout) initialize(ctx context.Context, b Binaries, a account, ephemeral bool) error {
	scratch := l.data + ".new"
	if err := os.RemoveAll(scratch); err != nil {
		return err
	}
	args := []string{
		"-D", scratch, "-U", superuser, "-E", "UTF8", "--locale=C.UTF-8",
		"--auth-local=peer", "--auth-host=reject", "--data-checksums",
	}
	if ephemeral {
		args = append(args, "--no-sync")
	}
	if out, err := a.command(ctx, l.dir, b.path("initdb"), args...).CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, tail(out, 10))
	}
	return os.Rename(scratch, l.data)
}

// admit writes who may connect: only through the socket, and there the server's
// account, root, and our own user. The directory of the socket keeps everybody
// else away.
func (l layout) admit(a account) error {
	names := map[string]bool{a.name: true, "root": true}
	if me, err := user.Current(); err == nil {
		names[me.Username] = true
	}
	var ident strings.Builder
	for name := range names {
		fmt.Fprintf(&ident, "private %q %s\n", name, superuser)
	}
	files := map[string]string{
		"pg_hba.conf":   "local all all peer map=private\n",
		"pg_ident.conf": ident.String(),
	}
	for name, text := range files {
		path := filepath.Join(l.data, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
		if err := a.own(path); err != nil {
			return err
		}
	}
	return nil
}
