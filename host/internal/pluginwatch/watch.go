package pluginwatch

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/pluginset"
)

// watch looks whenever the files have stopped changing, until ctx ends. If nobody
// writes to them, as after a rename, it waits only a moment, for files that are put
// in place together; otherwise until nothing has changed for a while.
func (w *Watcher) watch(ctx context.Context) {
	events, hints := w.subscribe()
	if events != nil {
		defer func() { _ = events.Close() }()
	}
	look := time.NewTicker(w.cfg.Look)
	defer look.Stop()
	rest := time.NewTimer(0) // something may have changed since the first look
	defer rest.Stop()
	resting := ""
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-hints:
			if !open {
				hints = nil
			} else if w.concerns(e.Name) {
				rest.Reset(moment)
			}
			continue
		case <-rest.C:
		case <-look.C:
		}
		w.subscribeTo(events)
		now := w.identities()
		if all(now) != resting && !closed(now) {
			// They have stopped changing if they are as they were one rest before.
			resting = all(now)
			rest.Reset(w.cfg.Rest)
			continue
		}
		resting = all(now)
		w.look(ctx, resting)
	}
}

// moment is for files that are put in place one after another, such as a binary
// and its signature.
const moment = 15 * time.Millisecond

// look applies the files if they have changed since the last look, or if something
// must be tried again.
func (w *Watcher) look(ctx context.Context, files string) {
	w.turn.Lock()
	defer w.turn.Unlock()
	again := false
	for _, r := range w.runs {
		again = again || r.again
	}
	if files == w.seen && !again {
		return
	}
	w.seen = files
	_, _ = w.apply(ctx, false, ByFiles, "the files have changed") // it logs errors, and Status shows them
}

// subscribe asks the system for events. Without them, the periodic looks remain.
func (w *Watcher) subscribe() (*fsnotify.Watcher, chan fsnotify.Event) {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		w.log.Warn("the system does not report changes of files; looking for them instead", "after", w.cfg.Look, "error", err)
		return nil, nil
	}
	w.subscribeTo(events)
	go func() {
		for range events.Errors { // events were lost: the next look finds the changes
		}
	}()
	return events, events.Events
}

// subscribeTo watches those directories of the files that exist.
func (w *Watcher) subscribeTo(events *fsnotify.Watcher) {
	if events == nil {
		return
	}
	for _, path := range w.files() {
		_ = events.Add(filepath.Dir(path)) // it may be missing or replaced; adding it twice does no harm
	}
}

// concerns reports whether a file that has changed is one of ours, or lies beside one
// that is a symbolic link: a ConfigMap's files change with the directory that their
// links lead through.
func (w *Watcher) concerns(path string) bool {
	return slices.ContainsFunc(w.files(), func(file string) bool {
		if file == path {
			return true
		}
		info, err := os.Lstat(file)
		return err == nil && info.Mode()&os.ModeSymlink != 0 && filepath.Dir(file) == filepath.Dir(path)
	})
}

// files returns all files whose changes matter: those that select reads, and those
// that were selected last.
func (w *Watcher) files() []string {
	toml := w.selector.Path()
	if abs, err := filepath.Abs(toml); err == nil {
		toml = abs
	}
	files := []string{toml, config.LockPath(toml)}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, path := range w.status.paths {
		files = append(files, path, path+pluginset.SignatureSuffix)
	}
	return files
}

// there is one of the files, with what changes when it is written or replaced.
type there struct{ path, identity string }

// all describes the files that exist.
func all(files []there) string {
	var s strings.Builder
	for _, f := range files {
		fmt.Fprintf(&s, "%s %s\n", f.path, f.identity)
	}
	return s.String()
}

func (w *Watcher) identities() []there {
	var files []there
	for _, path := range w.files() {
		f := there{path: path, identity: "-"}
		if link, err := os.Lstat(path); err == nil {
			f.identity = identity(link)
			if file, err := os.Stat(path); err == nil && link.Mode()&os.ModeSymlink != 0 {
				f.identity += " " + identity(file)
			}
		}
		files = append(files, f)
	}
	return files
}

func identity(info fs.FileInfo) string {
	st, _ := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d %d %v %v", st.Ino, st.Size, st.Mtim, st.Ctim)
}

// closed reports whether it is certain that nobody has one of the files open for
// writing.
func closed(files []there) bool {
	return !slices.ContainsFunc(files, func(f there) bool { return f.identity != "-" && !unwritten(f.path) })
}

// unwritten asks the kernel for a read lease, which it does not grant on a file that
// is open for writing, on a network file system, or on another user's file.
func unwritten(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // this ends the lease, too
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	return err == nil
}
