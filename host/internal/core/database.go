package core

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
	"github.com/tasker-systems/tasker-host/migrations/pgsession"
)

// database is the server that the host works on.
type database struct {
	url     string
	cluster *pgcluster.Cluster // nil: the server is not private to this host
	dir     string             // the cluster's
}

// located adds the server's location to an error about a schema that this program cannot
// use, if the server is private: nobody else knows where it is.
func (d *database) located(err error) error {
	_, changed := errors.AsType[*migrations.ChangedError](err)
	_, newer := errors.AsType[*migrations.NewerError](err)
	if d.cluster == nil || !changed && !newer {
		return err
	}
	return fmt.Errorf("%w (the private server keeps its data in %s: move that directory away to start with an empty one)", err, d.dir)
}

// startDatabase finds or starts the server, and brings its schema up to date.
func (c *Core) startDatabase(ctx context.Context) error {
	db, err := openDatabase(ctx, c.cfg, c.log)
	if err != nil {
		return err
	}
	c.database = db
	if err := c.readySchema(ctx); err != nil {
		return errors.Join(db.located(err), db.stop(context.WithoutCancel(ctx)))
	}
	return nil
}

func (c *Core) stopDatabase(ctx context.Context) error { return c.database.stop(ctx) }

// readySchema brings the schema up to date or, in production, checks that it is.
func (c *Core) readySchema(ctx context.Context) error {
	conn, err := pgx.ParseConfig(c.database.url)
	if err != nil {
		return fmt.Errorf("parse database url: %w", err)
	}
	conn.ConnectTimeout = c.cfg.Database.ConnectTimeout
	if c.database.cluster == nil {
		if err := pgsession.Check(ctx, conn); err != nil {
			return withFix(conn, err)
		}
	}
	if c.database.cluster == nil && c.cfg.Environment == "production" {
		return withFix(conn, checkSchema(ctx, conn))
	}
	return withFix(conn, migrations.Up(ctx, conn, c.log.Named("migrations")))
}

// checkServer logs a prominent warning if the server may lose what it has acknowledged:
// our promises are only as good as the server's.
func (c *Core) checkServer(ctx context.Context) error {
	f, err := c.Store.ServerFacts(ctx)
	if err != nil {
		return err
	}
	if !f.Fsync || !f.FullPageWrites || f.SynchronousCommit == "off" {
		c.log.Warn("a crash of this server can lose or damage tasks: set fsync, full_page_writes and synchronous_commit to on",
			"fsync", f.Fsync, "full_page_writes", f.FullPageWrites, "synchronous_commit", f.SynchronousCommit)
	}
	return nil
}

// checkSchema refuses a schema that does not match this binary. In production, schemas
// are migrated deliberately, with tasker migrate.
func checkSchema(ctx context.Context, cfg *pgx.ConnConfig) (err error) {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return migrations.Check(ctx, conn)
}

// openDatabase returns the configured server, or starts the private one.
func openDatabase(ctx context.Context, cfg *config.Config, log hclog.Logger) (*database, error) {
	if !cfg.Database.URL.IsZero() {
		if _, err := pgx.ParseConfig(cfg.Database.URL.Reveal()); err != nil {
			return nil, fmt.Errorf("%s: %w: want postgres://USER@HOST/DATABASE", placeOfURL(cfg), err)
		}
		return &database{url: cfg.Database.URL.Reveal()}, nil
	}
	e := cfg.Database.Embedded
	dir := e.StateDir
	if dir == "" {
		dir = filepath.Join(cfg.System.StateDir, "postgres")
	}
	cc := pgcluster.Config{Dir: dir, BinDir: e.BinDir, Log: log.Named("postgres"), Settings: embeddedSettings(cfg)}
	cluster, err := pgcluster.Start(ctx, cc)
	if mayInstall(e, err) {
		log.Warn("no PostgreSQL is installed: installing the distribution's package, which takes a minute")
		if err := pgcluster.Install(ctx); err != nil {
			return nil, err
		}
		cluster, err = pgcluster.Start(ctx, cc)
	}
	if errors.Is(err, pgcluster.ErrLocked) {
		return nil, fmt.Errorf("%w; stop that host first (tasker shutdown), or give this command a system.state_dir or a DATABASE_URL of its own", err)
	}
	if err != nil {
		return nil, err
	}
	return &database{url: cluster.DSN(), cluster: cluster, dir: dir}, nil
}

// placeOfURL returns where the operator wrote the URL.
func placeOfURL(cfg *config.Config) string {
	for _, key := range []string{"database.url_file", "database.url"} {
		if origin, ok := cfg.Origin(key); ok && !strings.HasPrefix(origin.Source, "built-in ") {
			return origin.String() + ": " + key
		}
	}
	return "database.url"
}

// mayInstall reports whether to install a server after one failed to start: none is
// installed, and the operator allows it.
func mayInstall(e config.Embedded, err error) bool {
	return e.Install && errors.Is(err, pgcluster.ErrNoBinaries)
}

// embeddedSettings returns settings that suit the host: short-lived rows, many small
// transactions.
func embeddedSettings(cfg *config.Config) map[string]string {
	return map[string]string{
		"max_connections":    fmt.Sprint(2*cfg.Database.MaxConnections + 30),
		"autovacuum_naptime": "10s",
		"checkpoint_timeout": "15min",
		"max_wal_size":       "4GB",
		"shared_buffers":     "256MB",
		"track_io_timing":    "off",
	}
}

// exited returns a channel that is closed when a private server exits; for other servers
// it is never closed.
func (d *database) exited() <-chan struct{} {
	if d.cluster == nil {
		return nil
	}
	return d.cluster.Exited()
}

func (d *database) lastWords() string {
	if d.cluster == nil {
		return ""
	}
	return d.cluster.LastWords()
}

func (d *database) stop(ctx context.Context) error {
	if d.cluster == nil {
		return nil
	}
	return d.cluster.Stop(ctx)
}
