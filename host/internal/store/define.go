package store

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// definitionTime is how long a change of definitions may take, waits included.
const definitionTime = 30 * time.Second

// define creates or changes tables, which is rare. Such a statement may take longer than
// ordinary ones, and needs locks that others hold. It waits for a lock no longer than
// ordinary statements, since everything after it waits as well, but it tries again.
func (s *Store) define(ctx context.Context, do func(tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, definitionTime)
	defer cancel()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			if err := allow(ctx, tx, definitionTime); err != nil {
				return err
			}
			return do(tx)
		})
		if err == nil || Classify(err) != Retry {
			return err
		}
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-ctx.Done():
			return err
		}
	}
}
