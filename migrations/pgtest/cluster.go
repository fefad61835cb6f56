package pgtest

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
)

// Cluster starts a private, migrated server for a test that stops or restarts
// it. The server is removed at the end of the test. The settings are added to
// the usual ones.
func Cluster(t testing.TB, more map[string]string) *pgcluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := startPrivate(t, newBase(t), "", more)
	if err := migrate(ctx, c.DSN()); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return c
}

// startPrivate starts a server whose state directory is base/pg.
func startPrivate(t testing.TB, base, binDir string, more map[string]string) *pgcluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all := settings()
	delete(all, "shared_buffers")
	maps.Copy(all, more)
	c, err := pgcluster.Start(ctx, pgcluster.Config{
		Dir: filepath.Join(base, "pg"), BinDir: binDir, Settings: all, Ephemeral: true, StopTimeout: 5 * time.Second,
		Log: hclog.New(&hclog.LoggerOptions{Name: "postgres", Output: t.Output(), Level: hclog.Warn}),
	})
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.Background()); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return c
}

const basePrefix = "tasker-pgtest-cluster-"

// newBase creates a directory for a private server, which is removed at the end of
// the test. It also removes the directories of test processes that were killed;
// their servers have died with them.
func newBase(t testing.TB) string {
	t.Helper()
	return newBaseIn(t, fast())
}

func newBaseIn(t testing.TB, parent string) string {
	t.Helper()
	locks, err := filepath.Glob(filepath.Join(parent, basePrefix+"*", "pg", "lock"))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	for _, lock := range locks {
		removeAbandoned(lock)
	}
	base, err := os.MkdirTemp(parent, basePrefix)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(base); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	if err := os.Chmod(base, 0o755); err != nil { // the server's account must be able to traverse it
		t.Fatalf("pgtest: %v", err)
	}
	return base
}

// removeAbandoned removes the directory of a private server if nobody holds its
// lock. The directory may belong to another user: what cannot be removed is left.
func removeAbandoned(lock string) {
	f, err := os.OpenFile(lock, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || time.Since(info.ModTime()) < patience {
		return
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		_ = os.RemoveAll(filepath.Dir(filepath.Dir(lock)))
	}
}
