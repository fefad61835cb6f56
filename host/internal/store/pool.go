package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tasker-systems/tasker-host/migrations/pgsession"
)

// PoolConfig says how to connect.
type PoolConfig struct {
	URL              string        // a connection string as libpq accepts it
	MaxConns         int32         // at least 4, so that settling, claiming, heartbeats and readers never wait for each other for long
	ConnectTimeout   time.Duration // for one connection
	StatementTimeout time.Duration // for one statement; must stay well below the lease
	LockTimeout      time.Duration // for the wait for one lock
	ApplicationName  string        // shown in pg_stat_activity
}

// OpenPool creates a pool whose sessions are set up so that a vanished host releases
// its locks within seconds, and a half-open connection is noticed. It connects
// lazily: an unreachable server shows up as the first call's error.
func OpenPool(ctx context.Context, cfg PoolConfig) (*pgxpool.Pool, error) {
	pc, err := cfg.pool()
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open database pool: %w", err)
	}
	return pool, nil
}

func (cfg PoolConfig) pool() (*pgxpool.Config, error) {
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("parse database url: %w", err)
	}
	pc.MaxConns = max(cfg.MaxConns, 4)
	pc.MinIdleConns = 2
	pc.MaxConnLifetime = time.Hour
	pc.MaxConnLifetimeJitter = 10 * time.Minute
	// A host that looks for work sends a query every second, over the same connection: a
	// ping before each query would double the cost.
	pc.ShouldPing = func(_ context.Context, c pgxpool.ShouldPingParams) bool { return c.IdleDuration > pingAfter }
	pc.AfterConnect = registerArrays
	pc.ConnConfig.ConnectTimeout = cfg.ConnectTimeout
	if pc.ConnConfig.ValidateConnect == nil {
		// A standby, or a server that is read-only, cannot hold leases.
		pc.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	pc.ConnConfig.AfterConnect = pgsession.Setup(sessionSettings(cfg), cfg.ConnectTimeout)
	return pc, nil
}

// pingAfter is how long a connection may have been idle and is still assumed to be
// alive.
const pingAfter = 3 * time.Second

func sessionSettings(cfg PoolConfig) map[string]string {
	return map[string]string{
		"application_name": cfg.ApplicationName,
		"timezone":         "UTC",
		// A session that has waited for a lock must see what the previous holder did. So each
		// statement needs its own snapshot, whatever the default of the database or the role is.
		"default_transaction_isolation": "read committed",
		// A queue or a partition that is empty when a statement is planned may hold a
		// million rows a minute later, and the plan is kept, so an index is always the
		// better bet. Tables without one are still scanned. Compiling is never worth it.
		"enable_seqscan":                      "off",
		"jit":                                 "off",
		"statement_timeout":                   ms(cfg.StatementTimeout),
		"lock_timeout":                        ms(cfg.LockTimeout),
		"idle_in_transaction_session_timeout": "5000",
		"tcp_keepalives_idle":                 "5",
		"tcp_keepalives_interval":             "2",
		"tcp_keepalives_count":                "3",
		"client_connection_check_interval":    "2000",
	}
}

// ms is a time in a form that PostgreSQL's settings accept: they do not know "1m0s".
func ms(d time.Duration) string { return fmt.Sprintf("%d", d.Milliseconds()) }
