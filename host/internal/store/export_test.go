package store

import "github.com/jackc/pgx/v5/pgxpool"

// PoolConfiguration returns the configuration of [OpenPool]'s pool.
func (cfg PoolConfig) PoolConfiguration() (*pgxpool.Config, error) { return cfg.pool() }
