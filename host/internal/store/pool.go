package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// PoolConfig says how to connect.
type PoolConfig struct {
	URL              string        // a connection string of libpq's form
	MaxConns         int32         // at least 4: settling, claiming, heartbeats and readers never wait for each other for long
	ConnectTimeout   time.Duration // for one connection
	StatementTimeout time.Duration // for one statement; must stay well below the lease
	ApplicationName  string        // shown in pg_stat_activity
}

// OpenPool makes a pool whose sessions are set up so that a vanished host frees
// its locks within seconds, and a half-open connection is noticed. It connects
// lazily: an unreachable server is the first call's error.
func OpenPool(ctx context.Context, cfg PoolConfig) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("parse database url: %w", err)
	}
	pc.MaxConns = max(cfg.MaxConns, 4)
	pc.MinIdleConns = 2
	pc.MaxConnLifetime = time.Hour
	pc.MaxConnLifetimeJitter = 10 * time.Minute
	pc.ConnConfig.ConnectTimeout = cfg.ConnectTimeout
	if len(pc.ConnConfig.Fallbacks) > 0 && pc.ConnConfig.ValidateConnect == nil {
		pc.ConnConfig.ValidateConnect = nil
	}
	for name, value := range sessionSettings(cfg) {
		pc.ConnConfig.RuntimeParams[name] = value
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open database pool: %w", err)
	}
	return pool, nil
}

func sessionSettings(cfg PoolConfig) map[string]string {
	ms := func(d time.Duration) string { return fmt.Sprintf("%d", d.Milliseconds()) }
	return map[string]string{
		"application_name":                    cfg.ApplicationName,
		"timezone":                            "UTC",
		"statement_timeout":                   ms(cfg.StatementTimeout),
		"lock_timeout":                        "3000",
		"idle_in_transaction_session_timeout": "5000",
		"tcp_keepalives_idle":                 "5",
		"tcp_keepalives_interval":             "2",
		"tcp_keepalives_count":                "3",
		"client_connection_check_interval":    "2000",
		"default_transaction_read_only":       "off",
	}
}

// exactly one row, or none, of a query scanned by position into a value.
func queryOne[T any](ctx context.Context, q querier, sql string, scan func(pgx.Row, *T) error, args ...any) (T, error) {
	var value T
	err := scan(q.QueryRow(ctx, sql, args...), &value)
	return value, err
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}
