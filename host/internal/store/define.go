package store

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// definitionTime is how long a change of definitions may take, waits included.
const definitionTime = 30 * time.Second

// define makes or changes tables, which is seldom. Such a statement takes longer
// than those of work may, and locks that others hold; it waits for one no longer
// than those, since what comes after it waits as well, but it tries again.
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
