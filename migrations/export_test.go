package migrations

import (
	"context"
	"io/fs"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
)

// Series lets tests run their own files.
type Series struct{ *series }

func ReadSeries(fsys fs.FS) (Series, error) {
	s, err := readSeries(fsys)
	return Series{s}, err
}

func (s Series) SetLockTimeout(value string) { s.lockTimeout = value }

func (s Series) Up(ctx context.Context, db *pgx.ConnConfig, log hclog.Logger) error {
	return s.up(ctx, db, log)
}

func (s Series) Down(ctx context.Context, db *pgx.ConnConfig, to int64, log hclog.Logger) error {
	return s.down(ctx, db, to, log)
}

func (s Series) Status(ctx context.Context, db Querier) ([]Migration, error) {
	return s.status(ctx, db)
}

func (s Series) Check(ctx context.Context, db Querier) error {
	all, err := s.status(ctx, db)
	if err != nil {
		return err
	}
	return s.check(all, true)
}

const LockKey = lockKey
