package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
)

const (
	// tmp is not os.TempDir, whose path may be too long for a socket, or closed to
	// the account that PostgreSQL runs under if we are root.
	tmp = "/tmp"

	// shm is where Linux keeps files in memory, unless a container gives it little room.
	// A database has hundreds of files, and most databases last for one test: creating the
	// files on a disk can cost more than everything that the test does with them.
	shm     = "/dev/shm"
	shmRoom = 8 << 30 // bytes it must have in all

	// idleSeconds is how long the shared server waits for a new user.
	idleSeconds = 30
)

// settings of the servers: many tests at once, nothing worth keeping.
func settings() map[string]string {
	return map[string]string{
		"max_connections":    "400",
		"shared_buffers":     "256MB",
		"fsync":              "off",
		"full_page_writes":   "off",
		"wal_level":          "minimal",
		"max_wal_senders":    "0",
		"max_wal_size":       "1GB",
		"checkpoint_timeout": "1h",
		"autovacuum":         "off", // it would work through hundreds of databases that last for seconds
		"jit":                "off",
	}
}

// fast is the directory for the servers' files. Its choice depends only on things that do
// not change while the machine runs, so all processes choose the same.
func fast() string {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(shm, &stat); err != nil || stat.Type != tmpfsMagic || stat.Blocks*uint64(stat.Bsize) < shmRoom {
		return tmp
	}
	return shm
}

// tmpfsMagic is the number by which statfs(2) identifies a file system in memory.
const tmpfsMagic = 0x01021994

// testServer is the server that the tests of this process use.
type testServer struct {
	url   string         // of an administrator
	users *os.File       // keeps the shared server until the process ends; nil for TEST_DATABASE_URL
	idle  chan *pgx.Conn // the administrator's
}

// keptConns is how many of the administrator's connections a process keeps.
const keptConns = 2

// findServer finds or starts the server, once for the process.
var findServer = sync.OnceValues(func() (testServer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if url := os.Getenv("TEST_DATABASE_URL"); url != "" {
		if err := execute(ctx, url, "select 1"); err != nil {
			return testServer{}, fmt.Errorf("TEST_DATABASE_URL: %w", err)
		}
		return testServer{url: url, idle: make(chan *pgx.Conn, keptConns)}, nil
	}
	dir := filepath.Join(fast(), "tasker-pgtest-"+strconv.Itoa(os.Geteuid()))
	s, err := join(ctx, dir, idleSeconds)
	if err != nil {
		return testServer{}, fmt.Errorf("share a test server in %s: %w", dir, err)
	}
	s.idle = make(chan *pgx.Conn, keptConns)
	return s, sweep(ctx, s.url)
})

// join makes the process a user of the server in dir, and starts that server if it
// does not run. Users share a lock, which the kernel releases however a process
// ends. Only a process that holds the lock exclusively may remove the server.
func join(ctx context.Context, dir string, idle int) (testServer, error) {
	users, err := openLock(dir + ".users")
	if err != nil {
		return testServer{}, err
	}
	err = flock(ctx, users, syscall.LOCK_SH)
	var url string
	if err == nil {
		url, err = findOrStart(ctx, dir, idle)
	}
	if err != nil {
		return testServer{}, errors.Join(err, users.Close())
	}
	return testServer{url: url, users: users}, nil
}

func findOrStart(ctx context.Context, dir string, idle int) (url string, err error) {
	if url := answering(ctx, dir); url != "" {
		return url, nil
	}
	starting, err := openLock(dir + ".starting")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, starting.Close()) }()
	if err := flock(ctx, starting, syscall.LOCK_EX); err != nil {
		return "", err
	}
	if url := answering(ctx, dir); url != "" {
		return url, nil // another process was faster
	}
	c, err := pgcluster.Start(ctx, pgcluster.Config{Dir: dir, Settings: settings(), Detached: true})
	if err != nil {
		return "", err
	}
	return c.DSN(), errors.Join(watchOver(dir, c.PID(), idle), c.Release())
}

// watchScript ends the server $2 and removes its files $1 when it has had no
// users for $3 seconds. A server that has ended but that nobody has reaped, as
// happens to orphans in containers, counts as gone.
const watchScript = `
gone() {
  read -r stat 2>/dev/null <"/proc/$1/stat" || return 0
  case "${stat##*) }" in Z*) return 0 ;; esac
  return 1
}
exec 9<>"$1.users"
unused=0
until gone "$2"; do
  sleep 1
  if ! flock -n -x 9; then
    unused=0
    continue
  fi
  unused=$((unused + 1))
  if [ "$unused" -ge "$3" ]; then
    kill -INT "$2"
    until gone "$2"; do sleep 0.1; done
    rm -rf "$1"
    exit
  fi
  flock -u 9
done`

// watchOver makes sure that the server ends some time after its last user.
func watchOver(dir string, pid, idle int) error {
	if _, err := exec.LookPath("flock"); err != nil {
		return fmt.Errorf("watch over the test server: %w; it is in the package util-linux", err)
	}
	cmd := exec.Command("/bin/sh", "-c", watchScript, "pgtest-watch", dir, strconv.Itoa(pid), strconv.Itoa(idle))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("watch over the test server: %w", err)
	}
	return cmd.Process.Release()
}

// answering returns the URL of the server in dir, or "" if it does not answer.
func answering(ctx context.Context, dir string) string {
	url, err := pgcluster.Running(dir, "")
	if err != nil || url == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil || conn.Close(ctx) != nil {
		return ""
	}
	return url
}

func openLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
}

func flock(ctx context.Context, f *os.File, how int) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock %s: %w", f.Name(), context.Cause(ctx))
		case <-tick.C:
		}
	}
}
