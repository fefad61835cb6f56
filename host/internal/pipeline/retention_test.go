package pipeline

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// attic is a database with old days, each with a number of pages of tasks, all of which
// are kept, and with one day that is locked.
type attic struct {
	Store

	days    []time.Time
	pages   int
	locked  time.Time
	looks   map[time.Time][]byte // the page, by day; the zero day is the default partition
	records int
}

func (a *attic) TakeDuty(context.Context, string, int32, time.Duration) (bool, error) {
	return true, nil
}

func (a *attic) OldDays(context.Context, store.Retention) ([]time.Time, error) { return a.days, nil }

func (a *attic) DayIsOver(_ context.Context, day time.Time, _ store.Retention) (bool, error) {
	return day.Equal(a.locked), nil
}

func (a *attic) DropDay(context.Context, time.Time, time.Duration, store.Retention) (int, error) {
	return 0, fmt.Errorf("drop a day: %w", &pgconn.PgError{Code: "55P03"})
}

func (a *attic) PruneTasks(_ context.Context, day *time.Time, after vocab.UUID, _ store.Retention) (int, *vocab.UUID, error) {
	var of time.Time
	if day != nil {
		of = *day
	}
	a.looks[of] = append(a.looks[of], after[0])
	if after[0]++; int(after[0]) == a.pages {
		return 0, nil, nil
	}
	return 0, &after, nil
}

func (a *attic) PruneRecords(context.Context, store.Retention) (int, error) {
	a.records++
	return 0, nil
}

func newAttic(pages int) (*attic, *retention) {
	a := &attic{pages: pages, looks: map[time.Time][]byte{}}
	return a, newRetention(New(Config{}, a, nil, nil, prometheus.NewRegistry(), hclog.NewNullLogger()))
}

// A day that is being read cannot be dropped; the others are processed nevertheless.
func TestRetentionGoesPastADayThatSomebodyReads(t *testing.T) {
	t.Parallel()
	a, r := newAttic(2)
	first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	second := first.AddDate(0, 0, 1)
	a.days, a.locked = []time.Time{first, second}, first
	require.Equal(t, store.Retry, store.Classify(r.turn(t.Context(), time.Minute)))
	require.Equal(t, map[time.Time][]byte{second: {0, 1}, {}: {0, 1}}, a.looks)
	require.Equal(t, 1, a.records)
}

// If the time of a turn is over before it has processed a whole day, the next one
// continues there, and records are processed as well.
func TestRetentionGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	a, r := newAttic(5)
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	a.days = []time.Time{day}
	for turn := 1; len(a.looks[time.Time{}]) == 0; turn++ {
		require.Less(t, turn, 10, "the turns do not reach the end of the day")
		err := r.turn(t.Context(), 0) // time enough for one look
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, turn, a.records)
	}
	require.Equal(t, []byte{0, 1, 2, 3, 4}, a.looks[day])
}
