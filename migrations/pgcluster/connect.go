package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DSN is the URL of the cluster's database, understood by every PostgreSQL
// client. It connects as the cluster's superuser.
func (c *Cluster) DSN() string { return c.DSNFor(c.cfg.Database) }

// DSNFor is the URL of another database of the cluster.
func (c *Cluster) DSNFor(database string) string { return dsn(c.layout.run, database) }

func dsn(run, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database}
	u.RawQuery = url.Values{"host": {run}, "port": {"5432"}, "sslmode": {"disable"}}.Encode()
	return u.String()
}

// Running finds the server that runs in a state directory, without managing it,
// for other processes of the same user that want to connect. It returns "" if none
// runs or accepts connections yet. An empty database means tasker.
func Running(dir, database string) (string, error) {
	l, err := newLayout(dir)
	if err != nil {
		return "", err
	}
	if database == "" {
		database = "tasker"
	}
	found, ok, err := livePostmaster(l.data)
	if err != nil || !ok || found.run == "" {
		return "", err
	}
	return dsn(found.run, database), nil
}

// await waits until the server accepts connections.
func (c *Cluster) await(ctx context.Context) error {
	const pause = 10 * time.Millisecond
	silentSince, toldAt := time.Now(), time.Now()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		err := c.greet(ctx)
		if err == nil {
			return nil
		}
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
			if pgErr.Code != pgerrcode.CannotConnectNow {
				return err
			}
			silentSince = time.Now()
		}
		if time.Since(toldAt) > 10*time.Second {
			toldAt = time.Now()
			c.cfg.Log.Info("waiting for the private PostgreSQL", "reply", err)
		}
		if time.Since(silentSince) > c.cfg.StartTimeout {
			return fmt.Errorf("no answer for %v: %w", c.cfg.StartTimeout, err)
		}
		select {
		case <-c.proc.done:
			return fmt.Errorf("the server exited (%w): %s", exitReason(c.proc.err), c.lastMessages())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func exitReason(err error) error {
	if err == nil {
		return errors.New("no error given")
	}
	return err
}

// lastMessages reads the last messages of a server that could not start.
func (c *Cluster) lastMessages() string {
	if c.cfg.Detached {
		text, err := os.ReadFile(c.layout.dir + "/log")
		if err != nil {
			return err.Error()
		}
		return string(tail(text, 10))
	}
	return c.out.tail()
}

// greet connects once.
func (c *Cluster) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, c.DSNFor("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func (c *Cluster) ensureDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.DSNFor("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var exists bool
	err = conn.QueryRow(ctx, "select exists (select from pg_catalog.pg_database where datname = $1)", c.cfg.Database).Scan(&exists)
	if err != nil || exists {
		return err
	}
	_, err = conn.Exec(ctx, "create database "+pgx.Identifier{c.cfg.Database}.Sanitize())
	return err
}

func removeIfExists(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
