package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// PoolConfig says how to connect.
type PoolConfig struct {
	URL              string        // a connection string of libpq's form
	MaxConns         int32         // at least 4: settling, claiming, heartbeats and readers never wait for each other for long
	ConnectTimeout   time.Duration // for one connection
	StatementTimeout time.Duration // for one statement; must stay well below the lease
	LockTimeout      time.Duration // for the wait for one lock
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
	if pc.ConnConfig.ValidateConnect == nil {
		// A standby, or a server that is read-only, cannot hold leases.
		pc.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
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
		"lock_timeout":                        ms(cfg.LockTimeout),
		"idle_in_transaction_session_timeout": "5000",
		"tcp_keepalives_idle":                 "5",
		"tcp_keepalives_interval":             "2",
		"tcp_keepalives_count":                "3",
		"client_connection_check_interval":    "2000",
	}
}
