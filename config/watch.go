package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleTime is how long files must be unchanged before they are read: editors and
	// deployments write more than once.
	settleTime = 200 * time.Millisecond
	// lookInterval finds changes that the system does not report, such as on network
	// file systems.
	lookInterval = 30 * time.Second
)

// Watch calls changed at its beginning, and whenever the content of the configuration
// files in an operator's directory changes, until ctx ends. It watches directories, not
// files, so that a replaced file stays watched.
func Watch(ctx context.Context, dir, env string, changed func()) (err error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	watched := []string{dir, filepath.Join(dir, "environments"), filepath.Join(dir, "environments", env)}
	if err := w.Add(dir); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	var seen [sha256.Size]byte
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	settle := time.NewTimer(0)
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-w.Events:
			if !open {
				return errors.New("the watch on the configuration ended")
			}
			settle.Reset(settleTime)
			continue
		case <-w.Errors: // events were lost: check the files
		case <-settle.C:
		case <-look.C:
		}
		for _, d := range watched {
			_ = w.Add(d) // it may be missing or replaced; adding twice has no effect
		}
		if now := contents(dir, env); now != seen {
			seen = now
			changed()
		}
	}
}

// contents is a checksum of the files that Load reads from a directory.
func contents(dir, env string) [sha256.Size]byte {
	h := sha256.New()
	for _, d := range []string{dir, filepath.Join(dir, "environments", env)} {
		files, _ := filepath.Glob(filepath.Join(d, "*.toml")) // the pattern is right
		slices.Sort(files)
		for _, f := range files {
			if filepath.Base(f) == pluginsFile && d == dir {
				continue
			}
			src, err := os.ReadFile(f)
			fmt.Fprintf(h, "%s %d %v\n", f, len(src), err)
			h.Write(src)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
