package pgtest

import (
	"context"
	"errors"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tasker-systems/tasker-host/migrations"
)

const (
	templatePrefix = "tmpl_"

	// keptTemplates is how many states of the migrations have a template.
	keptTemplates = 6
)

func templateName() (string, error) {
	digest, err := migrations.Digest()
	if err != nil {
		return "", err
	}
	return templatePrefix + digest[:24], nil
}

func (s Server) clone(ctx context.Context, name, template string) error {
	return s.execute(ctx, "create database "+name+" template "+template+" strategy file_copy")
}

// makeTemplate creates the template, unless another process is faster, and drops
// the templates of old states of the migrations.
func (s Server) makeTemplate(ctx context.Context, template string) error {
	conn, err := pgx.Connect(ctx, s.admin)
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
	dsn, err := withDatabase(s.admin, unfinished)
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
