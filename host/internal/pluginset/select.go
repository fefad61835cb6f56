package pluginset

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/artifact"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/runas"
)

// Slot is a plugin in plugins.toml, with its file.
type Slot struct {
	config.PluginSpec
	// File is the file at the plugin's path; without a checksum if it could not
	// be read.
	File artifact.Inspected
	// Locked is the checksum in plugins.lock for the file's platform; empty:
	// none.
	Locked string
	// SignedBy is the identifier of the key that signed the file; empty: it was
	// not checked.
	SignedBy string
	// Err says why the file must not run, and what to do about it.
	Err error
}

// Selection is what should run.
type Selection struct {
	Plugins *config.Plugins
	Slots   []Slot // by kind and name
}

// Slot returns the slot of a plugin.
func (s *Selection) Slot(kind, name string) (Slot, bool) {
	i, ok := slices.BinarySearchFunc(s.Slots, [2]string{kind, name}, func(s Slot, id [2]string) int {
		return cmp.Or(cmp.Compare(s.Kind, id[0]), cmp.Compare(s.Name, id[1]))
	})
	if !ok {
		return Slot{}, false
	}
	return s.Slots[i], true
}

// Selector selects plugins for one environment. It remembers the checksums of
// files that have not changed. It is safe for concurrent use.
type Selector struct {
	path, env string

	mu   sync.Mutex // guards the fields below
	seen map[string]look
}

// look is the result of checking a file.
type look struct {
	id        identity
	file      artifact.Inspected
	signature signature
	err       error
}

// identity tells whether a file has changed since it was checked.
type identity struct {
	dev, ino       uint64
	size           int64
	mode           uint32
	modified, meta syscall.Timespec
}

// NewSelector returns a selector for a plugins.toml.
func NewSelector(path, env string) *Selector {
	return &Selector{path: path, env: env, seen: map[string]look{}}
}

// Path returns the plugins.toml.
func (s *Selector) Path() string { return s.path }

// Select reads everything again. If plugins.toml does not exist, the error is
// os.ErrNotExist.
func (s *Selector) Select() (*Selection, error) {
	plugins, err := config.LoadPlugins(s.path, s.env)
	if err != nil {
		return nil, err
	}
	return s.of(plugins)
}

// SelectText selects as if plugins.toml had this text.
func (s *Selector) SelectText(text []byte) (*Selection, error) {
	plugins, err := config.ParsePlugins(s.path, text, s.env)
	if err != nil {
		return nil, err
	}
	return s.of(plugins)
}

func (s *Selector) of(plugins *config.Plugins) (*Selection, error) {
	lock, err := loadLock(plugins.Path)
	if err != nil {
		return nil, err
	}
	sel := &Selection{Plugins: plugins}
	for _, spec := range plugins.Specs {
		sel.Slots = append(sel.Slots, s.slot(plugins, lock, spec))
	}
	return sel, nil
}

// loadLock returns nil if there is no lock.
func loadLock(plugins string) (*config.Lock, error) {
	lock, err := config.LoadLock(config.LockPath(plugins))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return lock, err
}

// At returns a slot of a selection with another file in place of the configured
// one. The same rules apply to it.
func (s *Selector) At(sel *Selection, slot Slot, path string) (Slot, error) {
	lock, err := loadLock(sel.Plugins.Path)
	if err != nil {
		return Slot{}, err
	}
	spec := slot.PluginSpec
	spec.Path = path
	if path != slot.Path {
		spec.SHA256 = "" // it pins the other file
	}
	return s.slot(sel.Plugins, lock, spec), nil
}

func (s *Selector) slot(plugins *config.Plugins, lock *config.Lock, spec config.PluginSpec) Slot {
	slot := Slot{PluginSpec: spec}
	found := s.look(spec.Path)
	if slot.File, slot.Err = found.file, found.err; slot.Err != nil {
		return slot
	}
	slot.Err = together(
		checkPlatform(slot.File),
		checkPin(&slot),
		checkUser(&slot),
		checkLock(plugins, lock, &slot),
		found.signature.check(plugins, &slot),
	)
	return slot
}

// faults are all that is wrong with a slot, in one line.
type faults struct{ all []error }

// together joins the errors that are not nil; it returns nil if there are none.
func together(all ...error) error {
	all = slices.DeleteFunc(all, func(err error) bool { return err == nil })
	if len(all) == 0 {
		return nil
	}
	return &faults{all}
}

func (f *faults) Error() string {
	lines := make([]string, len(f.all))
	for i, err := range f.all {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "; ")
}

func (f *faults) Unwrap() []error { return f.all }

// look inspects a file, or returns what it found before if the file has not
// changed since.
func (s *Selector) look(path string) look {
	id, known := identify(path)
	if known {
		s.mu.Lock()
		before, ok := s.seen[path]
		s.mu.Unlock()
		if ok && before.id == id && before.err == nil {
			before.signature = readSignature(path, before.signature.reader)
			return before
		}
	}
	found := look{id: id}
	reader := &signed{}
	found.file, found.err = artifact.Inspect(path, reader.wrap)
	if found.err != nil {
		return found
	}
	found.signature = readSignature(path, reader)
	if after, ok := identify(path); !ok || after != id {
		// It has changed meanwhile, so what was read is not what is there now.
		return look{err: &artifact.Error{Path: path, Reason: "is changing while it is read", Fix: "put plugins in place by renaming, as mv does within a file system"}}
	}
	s.mu.Lock()
	s.seen[path] = found
	s.mu.Unlock()
	return found
}

func identify(path string) (identity, bool) {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return identity{}, false
	}
	return identity{dev: st.Dev, ino: st.Ino, size: st.Size, mode: st.Mode, modified: st.Mtim, meta: st.Ctim}, true
}

func checkPlatform(f artifact.Inspected) error {
	if f.Platform == artifact.AnyPlatform || f.Platform == artifact.ThisPlatform {
		return nil
	}
	_, machine, _ := strings.Cut(artifact.ThisPlatform, "/")
	return &artifact.Error{
		Path: f.Path, Reason: "is not an executable for this machine: it is for " + f.Platform + ", this is " + artifact.ThisPlatform,
		Fix: "build it with GOOS=linux GOARCH=" + machine,
	}
}

func checkPin(s *Slot) error {
	if s.SHA256 == "" || s.SHA256 == s.File.SHA256 {
		return nil
	}
	return &artifact.Error{
		Path:   s.Path,
		Reason: fmt.Sprintf("checksum mismatch: sha256 is %s, but the configured one is %s (%s)", s.File.SHA256, s.SHA256, s.Origin),
		Fix:    "if you want the new file, set the plugin's sha256 to the first value; otherwise restore the right file",
	}
}

// checkUser refuses a plugin that is to run as a user who does not exist, or
// whom the host may not become.
func checkUser(s *Slot) error {
	_, err := runas.Find(s.User)
	var wrong *runas.Error
	if !errors.As(err, &wrong) {
		return err
	}
	return &artifact.Error{Path: s.Path, Reason: fmt.Sprintf("user: %s (%s)", wrong.Reason, s.At("user")), Fix: wrong.Fix, Err: wrong.Err}
}

// checkLock looks the file up in the lock, and refuses it if it is missing there
// and the environment requires it. A checksum in plugins.toml is a lock too.
func checkLock(plugins *config.Plugins, lock *config.Lock, s *Slot) error {
	var locked config.Locked
	known := false
	if lock != nil {
		locked, known = lock.Plugin(plugins.Environment, s.Kind, s.Name)
	}
	s.Locked = locked.SHA256[s.File.Platform]
	if !plugins.Lock.Required || s.Locked == s.File.SHA256 || s.Locked == "" && s.SHA256 != "" {
		return nil
	}
	env := plugins.Environment
	fix := "to run this file, lock it: tasker plugin lock --env " + env
	name := filepath.Base(config.LockPath(plugins.Path))
	var reason string
	switch {
	case s.Locked != "":
		reason = fmt.Sprintf("checksum mismatch: sha256 is %s, but the one locked for %s is %s (%s)", s.File.SHA256, env, s.Locked, locked.Origin)
		fix += "; otherwise restore the locked file"
	case known:
		reason = fmt.Sprintf("%s locks it for %s, but not on %s", name, env, s.File.Platform)
	case lock != nil:
		reason = fmt.Sprintf("%s runs only locked files, and %s has no entry for %s", env, name, s.Slot())
	default:
		reason = fmt.Sprintf("%s runs only locked files, and there is no %s", env, lockOf(plugins))
	}
	return &artifact.Error{Path: s.Path, Reason: reason, Fix: fix}
}

func lockOf(plugins *config.Plugins) string { return config.LockPath(plugins.Path) }
