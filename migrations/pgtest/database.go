package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// patience bounds what we do for a test on a busy machine.
	patience = 3 * time.Minute

	// poolSize is how many sessions a pool has at most. The first calls of a session, which
	// compile functions and plan statements, cost more than all that most tests do in it.
	poolSize = 4

	databasePrefix = "test_"
)

// Server creates databases for tests. The package's functions of the same names
// do so on the usual server.
type Server struct {
	admin string         // URL of an administrator
	idle  chan *pgx.Conn // the administrator's idle connections; nil: none are kept
}

func usual(t testing.TB) Server {
	t.Helper()
	found, err := findServer()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return Server{admin: found.url, idle: found.idle}
}

// New returns a pool on a migrated, empty database of the test's own. Both are
// removed at the end of the test. Its sessions are in UTC, and no statement may
// take longer than 30 seconds.
func New(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return usual(t).New(t)
}

// DSN returns the URL of a migrated, empty database of the test's own, which is
// removed at the end of the test.
func DSN(t testing.TB) string {
	t.Helper()
	return usual(t).DSN(t)
}

// Empty returns the URL of a database without any schema, which is removed at the
// end of the test.
func Empty(t testing.TB) string {
	t.Helper()
	return usual(t).Empty(t)
}

// New is like the function New.
func (s Server) New(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return Pool(t, s.DSN(t))
}

// DSN is like the function DSN.
func (s Server) DSN(t testing.TB) string {
	t.Helper()
	return s.database(t, func(ctx context.Context, name string) error {
		template, err := templateName()
		if err != nil {
			return err
		}
		err = s.clone(ctx, name, template)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == pgerrcode.InvalidCatalogName {
			if err := s.makeTemplate(ctx, template); err != nil {
				return err
			}
			err = s.clone(ctx, name, template)
		}
		return err
	})
}

// Empty is like the function Empty.
func (s Server) Empty(t testing.TB) string {
	t.Helper()
	return s.database(t, func(ctx context.Context, name string) error {
		return s.execute(ctx, "create database "+name)
	})
}

// Pool opens a pool for the test on an existing database, with the settings of [New].
func Pool(t testing.TB, dsn string) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	cfg.MaxConns = poolSize
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
		case <-time.After(time.Minute):
			t.Errorf("pgtest: the test ended with %d connections in use", pool.Stat().AcquiredConns())
		}
	})
	return pool
}

// database creates a database for the test.
func (s Server) database(t testing.TB, create func(ctx context.Context, name string) error) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	name := newName()
	if err := create(ctx, name); err != nil {
		t.Fatalf("pgtest: make a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.execute(ctx, "drop database if exists "+name+" with (force)"); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	dsn, err := withDatabase(s.admin, name)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return dsn
}

var counter atomic.Int64

// newName returns a name for a database that tells which process it belongs to; see sweep.
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
		// Another process may be doing the same.
		if _, err := conn.Exec(ctx, "drop database if exists "+name+" with (force)"); err != nil && ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// execute runs an administrator's statement on a connection that is kept: creating one
// for each costs the server more than most of the statements.
func (s Server) execute(ctx context.Context, sql string) error {
	var conn *pgx.Conn
	select {
	case conn = <-s.idle:
	default:
		var err error
		if conn, err = pgx.Connect(ctx, s.admin); err != nil {
			return err
		}
	}
	_, err := conn.Exec(ctx, sql)
	if conn.IsClosed() {
		return err
	}
	select {
	case s.idle <- conn:
		return err
	default:
		return errors.Join(err, conn.Close(ctx))
	}
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
