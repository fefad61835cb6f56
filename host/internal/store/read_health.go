package store

import (
	"context"
	"fmt"
	"time"
)

const sqlClaimHealth = `
select s.expired, s.critical, s.warning, s.slow, s.missing, s.health_score, s.alert_level, s.oldest_claim_age_seconds
  from tasker_claim_health_summary s`

// ClaimHealth sums up the finalization claims that take long, by the level of
// their age.
type ClaimHealth struct {
	Expired, Critical, Warning, Slow int64
	Missing                          int64 // processors that hold an old claim and do nothing else
	Score                            int   // 0 to 100
	Level                            string
	Oldest                           time.Duration
}

// ClaimHealth looks at the finalization claims. It is cheap: it reads only claimed
// tasks.
func (s *Store) ClaimHealth(ctx context.Context) (ClaimHealth, error) {
	var c ClaimHealth
	var oldest float64
	err := s.pool.QueryRow(ctx, sqlClaimHealth).Scan(&c.Expired, &c.Critical, &c.Warning, &c.Slow, &c.Missing, &c.Score, &c.Level, &oldest)
	if err != nil {
		return ClaimHealth{}, fmt.Errorf("look at the claims for finalization: %w", err)
	}
	c.Oldest = seconds(oldest)
	return c, nil
}
