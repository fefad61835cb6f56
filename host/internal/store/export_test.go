package store

import "github.com/jackc/pgx/v5/pgxpool"

// PoolConfiguration is what [OpenPool] opens.
func (cfg PoolConfig) PoolConfiguration() (*pgxpool.Config, error) { return cfg.pool() }
