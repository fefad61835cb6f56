package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Config says where and how a cluster runs. Only Dir has no default.
type Config struct {
	// Dir is the state directory, created if needed. It must be ours alone.
	Dir string
	// BinDir holds postgres and initdb. Default: see [FindBinaries].
	BinDir string
	// Account is the user that the server runs as if we are root. Default:
	// postgres, else nobody.
	Account string
	// Database is created if it does not exist. Default: tasker.
	Database string
	// Settings go to the server's command line. The settings that the package
	// itself makes, the socket and the addresses, cannot be changed.
	Settings map[string]string
	// Ephemeral trades durability for speed, for tests: Stop removes the files,
	// and the server dies with the process that started it.
	Ephemeral bool
	// Detached starts a server that outlives this process, so that several
	// processes can share one: see [Cluster.Release]. Its messages go to the
	// file "log" in Dir.
	Detached bool
	// StartTimeout bounds the wait for a server that does not answer. A server
	// that reports recovery may take as long as Start's context allows. Default: 1m.
	StartTimeout time.Duration
	// StopTimeout is how long a stop may wait for clients and for the last
	// checkpoint before it becomes an immediate stop. Default: 30s.
	StopTimeout time.Duration
	// Log receives the server's messages. Default: none.
	Log hclog.Logger
}

func (c *Config) setDefaults() {
	if c.Database == "" {
		c.Database = "tasker"
	}
	if c.StartTimeout <= 0 {
		c.StartTimeout = time.Minute
	}
	if c.StopTimeout <= 0 {
		c.StopTimeout = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
}

// Cluster is a private PostgreSQL under our management. Its methods may be
// called from several goroutines.
type Cluster struct {
	cfg    Config
	bin    Binaries
	acct   account
	layout layout
	lock   *os.File
	out    *serverLog

	mu      sync.Mutex // guards the fields below; held while the server starts or stops
	proc    *process   // nil before the first start
	adopted bool
	closed  bool
}

// Start brings up the cluster in cfg.Dir. It creates the cluster if there is none,
// takes over a server that an earlier process left running with the same
// settings, or starts one. It returns when the server accepts connections. The
// error wraps [ErrLocked] if another process manages the cluster, or
// [ErrNoBinaries], or is a [*VersionError] or what PostgreSQL reported.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	cfg.setDefaults()
	c, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("start private PostgreSQL in %s: %w", cfg.Dir, err)
	}
	if err := c.bringUp(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start private PostgreSQL in %s: %w", cfg.Dir, err), c.lock.Close())
	}
	return c, nil
}

// open takes the state directory.
func open(cfg Config) (*Cluster, error) {
	l, err := newLayout(cfg.Dir)
	if err != nil {
		return nil, err
	}
	acct, err := serverAccount(cfg.Account)
	if err != nil {
		return nil, err
	}
	// Done before anything is created: without binaries nothing is left behind.
	if _, err := FindBinaries(cfg.BinDir, 0); err != nil {
		return nil, err
	}
	lock, err := l.prepare(acct)
	if err != nil {
		return nil, err
	}
	major, err := l.dataMajor()
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	bin, err := FindBinaries(cfg.BinDir, major)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &Cluster{cfg: cfg, bin: bin, acct: acct, layout: l, lock: lock, out: &serverLog{log: cfg.Log}}, nil
}

func (c *Cluster) bringUp(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.RemoveAll(c.layout.data + ".new"); err != nil {
		return err
	}
	if _, err := os.Stat(c.layout.data); err != nil {
		began := time.Now()
		if err := c.layout.initialize(ctx, c.bin, c.acct, c.cfg.Ephemeral); err != nil {
			return err
		}
		c.cfg.Log.Info("created a private PostgreSQL", "dir", c.layout.dir, "version", c.bin.Major, "took", time.Since(began).Round(time.Millisecond))
	}
	if err := c.adopt(ctx); err != nil {
		return err
	}
	if c.proc == nil {
		if err := c.launch(ctx); err != nil {
			return err
		}
	}
	if err := c.ensureDatabase(ctx); err != nil {
		return errors.Join(err, c.halt(context.WithoutCancel(ctx), syscall.SIGINT))
	}
	return nil
}

// args is the server's command line.
func (c *Cluster) args() []string {
	settings := map[string]string{}
	if c.cfg.Ephemeral {
		settings = map[string]string{"fsync": "off", "full_page_writes": "off", "wal_level": "minimal", "max_wal_senders": "0"}
	}
	maps.Copy(settings, c.cfg.Settings)
	maps.Copy(settings, map[string]string{
		"listen_addresses":        "",
		"port":                    "5432", // part of the socket's name
		"unix_socket_directories": c.layout.run,
		"unix_socket_permissions": "0700",
		"log_destination":         "stderr",
		"logging_collector":       "off",
		"log_line_prefix":         "",
	})
	args := []string{"-D", c.layout.data}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// adopt takes over a server that already runs on our data. A server that was
// started differently from how we would start it is stopped.
func (c *Cluster) adopt(ctx context.Context) error {
	found, ok, err := livePostmaster(c.layout.data)
	if err != nil {
		return err
	}
	if !ok {
		// The process number in a stale file may belong to another process by now,
		// which would keep the new server from starting. We hold the lock.
		return errors.Join(
			removeIfExists(filepath.Join(c.layout.data, "postmaster.pid")),
			removeIfExists(filepath.Join(c.layout.run, socketName+".lock")))
	}
	c.proc, c.adopted = watch(found.pid), true
	if c.startedAlike() {
		if err := c.await(ctx); err != nil {
			return fmt.Errorf("take over the running server (process %d): %w", found.pid, err)
		}
		c.cfg.Log.Info("took over the private PostgreSQL that an earlier process left running; its messages are not shown until it is restarted",
			"dir", c.layout.dir, "pid", found.pid)
		return nil
	}
	c.cfg.Log.Info("restarting the private PostgreSQL that an earlier process left running with other settings", "dir", c.layout.dir, "pid", found.pid)
	if err := c.halt(ctx, syscall.SIGINT); err != nil {
		return err
	}
	c.proc, c.adopted = nil, false
	return nil
}

// startedAlike compares the running server's command line with ours.
func (c *Cluster) startedAlike() bool {
	opts, err := os.ReadFile(filepath.Join(c.layout.data, "postmaster.opts"))
	if err != nil {
		return false
	}
	want := c.bin.path("postgres")
	for _, arg := range c.args() {
		want += ` "` + arg + `"`
	}
	return strings.TrimSpace(string(opts)) == want
}

// launch starts the server and waits until it accepts connections.
func (c *Cluster) launch(ctx context.Context) error {
	if err := c.layout.admit(c.acct); err != nil {
		return err
	}
	began := time.Now()
	// The server must survive ctx, which bounds only the start.
	cmd := c.acct.command(context.WithoutCancel(ctx), c.layout.data, c.bin.path("postgres"), c.args()...)
	cmd.WaitDelay = 5 * time.Second // for server processes that outlive a killed postmaster
	start := startChild
	switch {
	case c.cfg.Detached:
		logFile, err := os.OpenFile(filepath.Join(c.layout.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		defer logFile.Close()
		cmd.Stderr, start = logFile, startDetached
	default:
		cmd.Stderr = c.out
		if c.cfg.Ephemeral {
			dieWithParent(cmd.SysProcAttr)
		}
	}
	proc, err := start(cmd)
	if err != nil {
		return err
	}
	c.proc, c.adopted = proc, false
	if err := c.await(ctx); err != nil {
		return errors.Join(err, c.halt(context.WithoutCancel(ctx), syscall.SIGQUIT))
	}
	c.cfg.Log.Debug("private PostgreSQL accepts connections", "pid", proc.pid, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// Stop shuts the server down (at once if ctx is done), releases the state
// directory, and removes it if the cluster is ephemeral. Repeated calls do
// nothing.
func (c *Cluster) Stop(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if err := c.halt(ctx, syscall.SIGINT); err != nil {
		return errors.Join(err, c.lock.Close())
	}
	var err error
	if c.cfg.Ephemeral {
		err = errors.Join(os.RemoveAll(c.layout.dir), os.RemoveAll(c.layout.run))
	}
	return errors.Join(err, c.lock.Close())
}

// Release lets go of the server without stopping it; another process can then
// take over the cluster. A server that is not Detached dies, or loses its log,
// with this process.
func (c *Cluster) Release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.proc.quit()
	return c.lock.Close()
}

// StopImmediate makes the server drop everything, as a crash of the machine
// would: the next start, by [Cluster.Restart], recovers from the WAL.
func (c *Cluster) StopImmediate(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.halt(ctx, syscall.SIGQUIT)
}

// Restart stops the server, if it runs, and starts it again on the same data.
func (c *Cluster) Restart(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errors.New("restart private PostgreSQL: it was stopped for good")
	}
	if err := c.halt(ctx, syscall.SIGINT); err != nil {
		return err
	}
	if err := c.launch(ctx); err != nil {
		return fmt.Errorf("restart private PostgreSQL in %s: %w", c.layout.dir, err)
	}
	return nil
}

// halt stops the server with the given signal, and with SIGQUIT if that takes
// too long. It never sends SIGKILL: the next start would recover what postgres had
// not written by then, but its orphans could still write.
func (c *Cluster) halt(ctx context.Context, sig syscall.Signal) error {
	if c.proc == nil {
		return nil
	}
	defer c.proc.quit()
	if err := c.proc.signal(sig); err != nil {
		return fmt.Errorf("stop private PostgreSQL: %w", err)
	}
	patience := time.NewTimer(c.cfg.StopTimeout)
	defer patience.Stop()
	select {
	case <-c.proc.done:
		return nil
	case <-patience.C:
	case <-ctx.Done():
	}
	c.cfg.Log.Warn("private PostgreSQL does not stop, dropping its clients", "pid", c.proc.pid)
	if err := c.proc.signal(syscall.SIGQUIT); err != nil {
		return fmt.Errorf("stop private PostgreSQL: %w", err)
	}
	const last = 15 * time.Second // postgres kills its own stragglers after 5s
	patience.Reset(last)
	select {
	case <-c.proc.done:
		return nil
	case <-patience.C:
		return fmt.Errorf("stop private PostgreSQL: process %d is still there %v after SIGQUIT", c.proc.pid, last)
	}
}

// Exited is closed when the server that runs now has exited, whoever stopped
// it. After Restart there is a new one to ask for.
func (c *Cluster) Exited() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proc.done
}

// LastWords are the latest messages of the server; the reason of an unexpected
// exit is usually among them.
func (c *Cluster) LastWords() string { return c.out.tail() }

// PID is the process number of the server.
func (c *Cluster) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proc.pid
}

// Adopted reports whether the server was left running by an earlier process.
func (c *Cluster) Adopted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.adopted
}

// Binaries returns which PostgreSQL is running.
func (c *Cluster) Binaries() Binaries { return c.bin }

// Dir is the state directory.
func (c *Cluster) Dir() string { return c.layout.dir }
