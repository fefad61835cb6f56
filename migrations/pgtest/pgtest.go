package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
)

const (
	// patience bounds what we do for a test, on a machine that is busy.
	patience = time.Minute

	databasePrefix = "test_"
	templatePrefix = "tmpl_"

	// keptTemplates is how many states of the migrations have a template.
	keptTemplates = 6
)

// New returns a pool on a migrated, empty database of the test's own. Both go
// away with the test. Its sessions are in UTC, and no statement may take longer
// than 30 seconds.
func New(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return Pool(t, DSN(t))
}

// DSN returns the URL of a migrated, empty database of the test's own, which
// goes away with the test.
func DSN(t testing.TB) string {
	t.Helper()
	return database(t, func(ctx context.Context, admin, name string) error {
		template, err := templateName()
		if err != nil {
			return err
		}
		err = clone(ctx, admin, name, template)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == pgerrcode.InvalidCatalogName {
			if err := makeTemplate(ctx, admin, template); err != nil {
				return err
			}
			err = clone(ctx, admin, name, template)
		}
		return err
	})
}

// Empty returns the URL of a database without any schema, which goes away with
// the test.
func Empty(t testing.TB) string {
	t.Helper()
	return database(t, func(ctx context.Context, admin, name string) error {
		return execute(ctx, admin, "create database "+name)
	})
}

// Pool opens a pool for the test, as [New] does, on a database that exists.
func Pool(t testing.TB, dsn string) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	cfg.MaxConns = max(cfg.MaxConns, 8)
	cfg.ConnConfig.RuntimeParams["TimeZone"] = "UTC"
	cfg.ConnConfig.RuntimeParams["statement_timeout"] = "30s"
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		closed := make(chan struct{})
		go func() { pool.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(10 * time.Second):
			t.Errorf("pgtest: the test ended with %d connections in use", pool.Stat().AcquiredConns())
		}
	})
	return pool
}

// Cluster starts a private, migrated server for a test that stops or restarts
// it. It goes away with the test. The settings are added to the usual ones.
func Cluster(t testing.TB, more map[string]string) *pgcluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dir := clusterDir(t)
	all := settings()
	delete(all, "shared_buffers")
	for k, v := range more {
		all[k] = v
	}
	c, err := pgcluster.Start(ctx, pgcluster.Config{
		Dir: dir, Settings: all, Ephemeral: true, StopTimeout: 5 * time.Second,
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
	if err := migrate(ctx, c.DSN()); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return c
}

const clusterPrefix = "tasker-pgtest-cluster-"

// clusterDir names a directory for a private server. It removes those of
// processes that were killed; their servers have died with them.
func clusterDir(t testing.TB) string {
	t.Helper()
	old, err := filepath.Glob(filepath.Join(tmp, clusterPrefix+"*", "lock"))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	for _, path := range old {
		removeAbandoned(path)
	}
	dir, err := os.MkdirTemp(tmp, clusterPrefix)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return dir
}

// removeAbandoned removes a private server's directory if nobody holds its lock.
// It is others' litter: what cannot be removed is left to them.
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
		_ = os.RemoveAll(filepath.Dir(lock))
	}
}

// database makes a database for the test on the server of this process.
func database(t testing.TB, create func(ctx context.Context, admin, name string) error) string {
	t.Helper()
	server, err := findServer()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	name := newName()
	if err := create(ctx, server.url, name); err != nil {
		t.Fatalf("pgtest: make a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := execute(ctx, server.url, "drop database if exists "+name+" with (force)"); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	dsn, err := withDatabase(server.url, name)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return dsn
}

var counter atomic.Int64

// newName makes a database's name that tells whose it is, see sweep.
func newName() string {
	return fmt.Sprintf("%s%d_%x_%d", databasePrefix, os.Getpid(), time.Now().UnixMicro(), counter.Add(1))
}

// sweep drops the databases of processes that are gone.
func sweep(ctx context.Context, admin string) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `select datname from pg_database where datname like 'test\_%'`)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		pid, _, _ := strings.Cut(strings.TrimPrefix(name, databasePrefix), "_")
		n, err := strconv.Atoi(pid)
		if err != nil || syscall.Kill(n, 0) == nil {
			continue
		}
		// Another process may do the same now.
		if _, err := conn.Exec(ctx, "drop database if exists "+name+" with (force)"); err != nil && ctx.Err() != nil {
			return err
		}
	}
	return nil
}

func templateName() (string, error) {
	digest, err := migrations.Digest()
	if err != nil {
		return "", err
	}
	return templatePrefix + digest[:24], nil
}

func clone(ctx context.Context, admin, name, template string) error {
	return execute(ctx, admin, "create database "+name+" template "+template+" strategy file_copy")
}

// makeTemplate makes the template, unless another process is faster, and drops
// those of states of the migrations that are long gone.
func makeTemplate(ctx context.Context, admin, template string) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) // frees the lock
	if _, err := conn.Exec(ctx, "select pg_advisory_lock(hashtextextended($1, 0))", templatePrefix); err != nil {
		return err
	}
	var exists bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", template).Scan(&exists); err != nil || exists {
		return err
	}
	unfinished := "unfinished_" + template
	dsn, err := withDatabase(admin, unfinished)
	if err != nil {
		return err
	}
	for _, sql := range []string{"drop database if exists " + unfinished + " with (force)", "create database " + unfinished} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if err := migrate(ctx, dsn); err != nil {
		return err
	}
	for _, sql := range []string{
		"alter database " + unfinished + " with allow_connections false",
		"alter database " + unfinished + " rename to " + template,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return dropOldTemplates(ctx, conn)
}

func dropOldTemplates(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `select datname from pg_database where datname like 'tmpl\_%' order by oid desc offset $1`, keptTemplates)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		_, err := conn.Exec(ctx, "drop database if exists "+name)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == pgerrcode.ObjectInUse {
			continue // it is being cloned
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func migrate(ctx context.Context, dsn string) error {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return err
	}
	return migrations.Up(ctx, cfg, hclog.NewNullLogger())
}

func execute(ctx context.Context, dsn, sql string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// withDatabase replaces the database's name in a URL.
func withDatabase(dsn, database string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme == "" {
		return "", fmt.Errorf("TEST_DATABASE_URL must be a URL such as postgres://user@host/database")
	}
	u.Path = "/" + database
	return u.String(), nil
}
