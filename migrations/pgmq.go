package migrations

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tasker-systems/tasker-host/migrations/pgmqcompat"
)

// PGMQKind says where the queues of a database come from.
type PGMQKind string

// The kinds of pgmq.
const (
	PGMQNone      PGMQKind = "none"      // not installed yet
	PGMQExtension PGMQKind = "extension" // the extension; its objects are never altered, except that the queues in use get triggers
	PGMQForeign   PGMQKind = "foreign"   // a schema pgmq that belongs neither to the extension nor to us
	PGMQCompat    PGMQKind = "compat"    // our compatible installation
)

// PGMQInfo describes the pgmq of a database.
type PGMQInfo struct {
	Kind PGMQKind
	// Version is the extension's version, or the interface and revision of ours,
	// such as 1.5.1-compat.1; empty if unknown.
	Version string
	// Missing are the functions that we rely on and that it lacks.
	Missing []string

	revision  int  // of our installation
	available bool // the server offers the extension
}

// neededFunctions are the functions that our SQL and our transport call.
var neededFunctions = []string{
	"pgmq.create(text)",
	"pgmq.send(text,jsonb,jsonb,integer)",
	"pgmq.send(text,jsonb,jsonb,timestamp with time zone)",
	"pgmq.send_batch(text,jsonb[],jsonb[])",
	"pgmq.send_batch(text,jsonb[],jsonb[],integer)",
	"pgmq.send_batch(text,jsonb[],jsonb[],timestamp with time zone)",
	"pgmq.read(text,integer,integer,jsonb)",
	"pgmq.delete(text,bigint[])",
	"pgmq.archive(text,bigint[])",
	"pgmq.set_vt(text,bigint,integer)",
	"pgmq.metrics(text)",
	"pgmq.list_queues()",
}

const inspectPGMQSQL = `
select coalesce((select e.extversion from pg_catalog.pg_extension e where e.extname = 'pgmq'), ''),
       exists (select from pg_catalog.pg_available_extensions a where a.name = 'pgmq'),
       to_regclass('pgmq.meta') is not null,
       coalesce(obj_description(to_regnamespace('pgmq')::oid, 'pg_namespace'), ''),
       array(select f from unnest($1::text[]) with ordinality u (f, n) where to_regprocedure(f) is null order by n)`

// PGMQ reports which pgmq the database has.
func PGMQ(ctx context.Context, db Querier) (PGMQInfo, error) {
	var info PGMQInfo
	var extension, comment string
	var exists bool
	err := db.QueryRow(ctx, inspectPGMQSQL, neededFunctions).Scan(&extension, &info.available, &exists, &comment, &info.Missing)
	if err != nil {
		return PGMQInfo{}, fmt.Errorf("inspect pgmq: %w", err)
	}
	revision, ours := pgmqcompat.ParseMark(comment)
	switch {
	case extension != "":
		info.Kind, info.Version = PGMQExtension, extension
	case !exists:
		info.Kind, info.Missing = PGMQNone, nil
	case ours:
		info.Kind, info.Version, info.revision = PGMQCompat, pgmqcompat.Interface+"-compat."+strconv.Itoa(revision), revision
	default:
		info.Kind = PGMQForeign
	}
	return info, nil
}

// installPGMQ makes sure that the database has queues. An existing installation is
// used as it is, unless it is an earlier revision of our own.
func installPGMQ(ctx context.Context, conn *pgx.Conn, log hclog.Logger) error {
	info, err := PGMQ(ctx, conn)
	if err != nil {
		return err
	}
	switch {
	case info.Kind == PGMQNone && info.available:
		err = createExtension(ctx, conn)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == pgerrcode.InsufficientPrivilege {
			log.Warn("the server offers the extension pgmq, but this role may not create it; installing compatible queues. "+
				"To use the extension, have an administrator create it in an empty database first", "error", err)
			err = installCompat(ctx, conn)
		}
	case info.Kind == PGMQNone, info.Kind == PGMQCompat && info.revision < pgmqcompat.Revision:
		err = installCompat(ctx, conn)
	case len(info.Missing) == 0:
		return nil
	}
	if err != nil {
		return fmt.Errorf("install pgmq: %w", err)
	}
	if info, err = PGMQ(ctx, conn); err != nil {
		return err
	}
	if len(info.Missing) > 0 {
		return fmt.Errorf("the pgmq of this database (%s %s) lacks %s: version %s or later is needed",
			info.Kind, info.Version, strings.Join(info.Missing, ", "), pgmqcompat.Interface)
	}
	log.Info("pgmq is ready", "kind", string(info.Kind), "version", info.Version)
	return nil
}

func createExtension(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "create extension if not exists pgmq")
	return err
}

func installCompat(ctx context.Context, conn *pgx.Conn) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, sql := range []string{
			// Not "if not exists", which requires the right to create even if the schema exists.
			"do $$ begin if to_regnamespace('pgmq') is null then create schema pgmq; end if; end $$",
			pgmqcompat.SQL,
			"comment on schema pgmq is '" + pgmqcompat.Mark() + "'",
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}
