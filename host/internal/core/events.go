package core

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/host/internal/events"
	"github.com/tasker-systems/tasker-host/host/internal/health"
	"github.com/tasker-systems/tasker-host/host/internal/lifecycle"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// buildEvents creates the hub that tells clients what happens.
func (c *Core) buildEvents() {
	log := c.log.Named("events")
	c.events = events.New(events.Config{
		Slack: c.cfg.Database.StatementTimeout + c.cfg.Database.LockTimeout + time.Second,
	}, c.Store, c.registry, log)
	c.telling = lifecycle.NewRunner("events", c.events.Run, func(err error) { log.Error("the event feed has stopped", "error", err) })
}

func (c *Core) startEvents(ctx context.Context) error { return c.telling.Start(ctx) }

func (c *Core) stopEvents(ctx context.Context) error { return c.telling.Stop(ctx) }

const (
	healthWriteTimeout = 2 * time.Second // the monitor waits this long at most
	maxHealthUnwritten = 200             // changes kept until the database comes back
)

// healthJournal records changes of health in the database. What it cannot write waits for
// the next change, usually that of the database check itself. Only the monitor's loop
// uses it.
type healthJournal struct {
	store     *store.Store
	log       hclog.Logger
	unwritten []store.HealthChange
}

// Report implements [health.Sink].
func (j *healthJournal) Report(ctx context.Context, changes []health.Event) {
	if len(changes) == 0 {
		return
	}
	for _, e := range changes {
		j.unwritten = append(j.unwritten, store.HealthChange{
			At: e.At, Check: e.Check, From: string(e.From), To: string(e.To), Message: e.Message,
		})
	}
	if over := len(j.unwritten) - maxHealthUnwritten; over > 0 {
		j.unwritten = j.unwritten[over:]
	}
	ctx, cancel := context.WithTimeout(ctx, healthWriteTimeout)
	defer cancel()
	if err := j.store.RecordHealth(ctx, hostName(), j.unwritten); err != nil {
		j.log.Warn("changes of health are not recorded yet", "changes", len(j.unwritten), "error", err)
		return
	}
	j.unwritten = nil
}
