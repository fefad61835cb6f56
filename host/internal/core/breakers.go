package core

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/breaker"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

func breakerLimits(c *config.CircuitBreakers) breaker.Limits {
	of := func(b config.CallBreaker) breaker.Config {
		return breaker.Config{Failures: b.Failures, Timeout: b.Timeout, Probes: b.Probes}
	}
	return breaker.Limits{Enabled: c.Enabled, Database: of(c.Database), Queue: of(c.PGMQ)}
}

// breakerMoved reports a breaker's change. If it is the database's, the heartbeat finds
// out when the database is back: it bypasses the breakers, so nobody has to wait for the
// timeout.
func (c *Core) breakerMoved(m breaker.Change) {
	log := c.log.Named("breakers")
	if m.To == breaker.Open {
		log.Warn("circuit breaker opened", "breaker", m.Name, "from", m.From, "reason", m.Reason)
	} else {
		log.Info("circuit breaker moved", "breaker", m.Name, "from", m.From, "to", m.To, "reason", m.Reason)
	}
	if m.Name == breaker.Database.String() && m.To == breaker.Open && c.built.Load() {
		c.Engine.Announce()
	}
}

// gate lets the store consult the breakers, and the operational state before taking work.
// It decides what counts as a failure.
type gate struct {
	breakers *breaker.Set
	state    *opstate.Machine
}

var _ store.Gate = gate{}

// Enter implements [store.Gate].
func (g gate) Enter(queue, class string) (leave func(error), err error) {
	if class == store.ClassClaim || class == store.ClassRead {
		if state := g.state.State(); !state.ClaimsWork() {
			return nil, fmt.Errorf("%w: %w: %s", store.ErrRefused, errNotInState, state)
		}
	}
	b := g.breakers.Of(breaker.ID{Queue: queue, Class: breaker.Class(class)})
	if b == nil {
		return func(error) {}, nil
	}
	done, err := b.Allow()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrRefused, err)
	}
	judge := ofQueue
	if queue == "" {
		judge = ofDatabase
	}
	return func(err error) { done(judge(err), brief(err)) }, nil
}

// Told implements [store.Gate].
func (g gate) Told(err error) {
	b := g.breakers.Of(breaker.Database)
	outcome := ofDatabase(err)
	if outcome == breaker.Success {
		b.Recovered()
	}
	b.Report(outcome, brief(err))
}

// ofDatabase returns what the result of a call says about the database as a whole: any
// answer shows that it is there, unless the answer is that it cannot serve now.
func ofDatabase(err error) breaker.Outcome {
	switch {
	case err == nil:
		return breaker.Success
	case errors.Is(err, store.ErrRefused), errors.Is(err, context.Canceled):
		return breaker.Ignored
	case errors.Is(err, context.DeadlineExceeded):
		return breaker.Failure // it did not answer within the time limit of a call
	case store.IsTimeout(err), sqlState(err) == "42501":
		return breaker.Success // it is working, on something else or for someone else
	}
	switch store.Classify(err) {
	case store.Unavailable, store.Unknown:
		return breaker.Failure
	default:
		return breaker.Success
	}
}

// ofQueue returns what the result of a call says about a queue. The queue fails if it is
// not in the expected condition or takes too long. What the database's own breaker
// counts, and faults of a single message or step, say nothing about the queue.
func ofQueue(err error) breaker.Outcome {
	switch {
	case err == nil:
		return breaker.Success
	case errors.Is(err, store.ErrRefused):
		return breaker.Ignored
	case store.IsTimeout(err), sqlState(err) == "55P03":
		return breaker.Failure
	}
	switch store.Classify(err) {
	case store.Permanent:
		return breaker.Failure
	case store.BadInput, store.Retry:
		return breaker.Success
	default:
		return breaker.Ignored
	}
}

func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}
