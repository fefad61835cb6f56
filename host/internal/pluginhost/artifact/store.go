package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxBytes is the size of the largest executable that is accepted.
const MaxBytes = 1 << 30

const tempPrefix = ".intake-"

// Artifact is an executable in the store.
type Artifact struct {
	// Path is the copy in the store, which is what to execute.
	Path string
	// SHA256 is the hash of the copy, 64 hexadecimal digits in lower case.
	SHA256 string
	// Size is in bytes.
	Size int64
}

// Error says why a file was not taken in, and what to do about it.
type Error struct {
	Path   string // the file
	Reason string // what is wrong with it
	Fix    string // what to do
	Err    error  // the cause, if there is one
}

var _ error = (*Error)(nil)

// Error returns path, reason and fix in one line.
func (e *Error) Error() string {
	s := e.Path + ": " + e.Reason
	if e.Err != nil && e.Err != fs.ErrNotExist { // that one says no more than the reason does
		s += ": " + e.Err.Error()
	}
	if e.Fix != "" {
		s += " (" + e.Fix + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Store is a private directory of executables. Its methods are safe for concurrent use.
type Store struct {
	dir string
}

// Open returns the store in a directory, which is created if missing. A directory that
// others may write to, or that belongs to another user, is rejected.
func Open(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open plugin store %s: %w", dir, err)
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, fmt.Errorf("open plugin store: %w", err)
	}
	info, err := os.Lstat(abs)
	if err != nil {
		return nil, fmt.Errorf("open plugin store: %w", err)
	}
	switch {
	case !info.IsDir():
		return nil, &Error{Path: abs, Reason: "the plugin store is not a directory", Fix: "use a directory of its own"}
	case !owned(info, false):
		return nil, &Error{Path: abs, Reason: "the plugin store belongs to another user", Fix: "use a directory that belongs to the host's user"}
	case info.Mode().Perm()&0o077 != 0:
		return nil, &Error{Path: abs, Reason: fmt.Sprintf("the plugin store is open to others (mode %04o)", info.Mode().Perm()), Fix: "chmod 0700 " + abs}
	}
	return &Store{dir: abs}, nil
}

// Intake checks an executable, copies it into the store and returns the copy. If want is
// not empty, the hash must be want, 64 hexadecimal digits. The file is opened once and
// not followed if it is a symbolic link.
func (s *Store) Intake(path, want string) (Artifact, error) {
	if err := checkDigest(path, want); err != nil {
		return Artifact{}, err
	}
	src, err := open(path)
	if err != nil {
		return Artifact{}, err
	}
	defer src.Close()
	if err := checkExecutable(path, src); err != nil {
		return Artifact{}, err
	}
	temp, sum, size, err := s.copy(src)
	if err != nil {
		return Artifact{}, fmt.Errorf("copy %s into the plugin store: %w", path, err)
	}
	if want != "" && !strings.EqualFold(want, sum) {
		return Artifact{}, errors.Join(&Error{
			Path:   path,
			Reason: fmt.Sprintf("checksum mismatch: sha256 is %s, but the configured one is %s", sum, strings.ToLower(want)),
			Fix:    "if you want the new file, set the plugin's sha256 to the first value; otherwise restore the right file",
		}, os.Remove(temp))
	}
	final := filepath.Join(s.dir, sum)
	if err := os.Rename(temp, final); err != nil {
		return Artifact{}, errors.Join(fmt.Errorf("copy %s into the plugin store: %w", path, err), os.Remove(temp))
	}
	return Artifact{Path: final, SHA256: sum, Size: size}, nil
}

// Get returns an executable that was taken in before, by its hash.
func (s *Store) Get(sum string) (Artifact, error) {
	path := filepath.Join(s.dir, strings.ToLower(sum))
	if err := checkDigest(path, sum); err != nil {
		return Artifact{}, err
	}
	if sum == "" {
		return Artifact{}, &Error{Path: path, Reason: "no hash given", Fix: "use the output of sha256sum"}
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Artifact{}, &Error{Path: path, Reason: "the plugin store has no executable with this hash", Fix: "give the path of the file", Err: fs.ErrNotExist}
	}
	if err != nil {
		return Artifact{}, fmt.Errorf("look in the plugin store: %w", err)
	}
	a := Artifact{Path: path, SHA256: strings.ToLower(sum), Size: info.Size()}
	return a, s.Verify(a)
}

// Digest checks an executable as Intake does, and returns its hash; it does not change
// the store.
func Digest(path string) (string, error) {
	f, err := open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := checkExecutable(path, f); err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, MaxBytes+1)); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Verify reports whether the copy in the store is still what was taken in. Call
// it before the artifact is executed again.
func (s *Store) Verify(a Artifact) error {
	f, err := os.OpenFile(a.Path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("verify stored plugin: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("verify stored plugin %s: %w", a.Path, err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != a.SHA256 {
		return &Error{Path: a.Path, Reason: "the stored copy has changed: sha256 is " + sum, Fix: "find out who writes to the plugin store"}
	}
	return nil
}

// Keep marks the artifact as in use: Prune counts its age from now.
func (s *Store) Keep(a Artifact) error {
	now := time.Now()
	if err := os.Chtimes(a.Path, now, now); err != nil {
		return fmt.Errorf("keep stored plugin: %w", err)
	}
	return nil
}

// Prune removes files that were neither taken in nor kept for longer than age, and what
// interrupted intakes left behind. Processes that run from a removed file are not
// disturbed.
func (s *Store) Prune(age time.Duration) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("prune plugin store: %w", err)
	}
	var errs []error
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < age {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("prune plugin store: %w", err))
		}
	}
	return errors.Join(errs...)
}

// copy writes src to a temporary file of the store and returns its name, hash and size.
// The read lock on ForkLock keeps other goroutines from forking a child that would hold
// the file open for writing: the kernel refuses to execute such a file (ETXTBSY).
func (s *Store) copy(src *os.File) (temp, sum string, size int64, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()

	dst, err := os.CreateTemp(s.dir, tempPrefix+"*")
	if err != nil {
		return "", "", 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(dst.Name()))
		}
	}()
	h := sha256.New()
	size, err = io.Copy(io.MultiWriter(dst, h), io.LimitReader(src, MaxBytes+1))
	if err == nil && size > MaxBytes {
		err = fmt.Errorf("larger than %d MiB", MaxBytes>>20)
	}
	if err == nil {
		err = dst.Chmod(0o500)
	}
	if err = errors.Join(err, dst.Close()); err != nil {
		return "", "", 0, err
	}
	return dst.Name(), hex.EncodeToString(h.Sum(nil)), size, nil
}
