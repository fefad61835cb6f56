package core

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/systemd"
)

// tellManager tells the service manager of this host, if there is one.
type tellManager struct {
	core    *Core
	manager *systemd.Manager // nil: there is none
	isUp    atomic.Bool      // it was told so
	watch   sync.WaitGroup
	end     context.CancelFunc
}

// up says that the host is up, and begins to feed the watchdog.
func (t *tellManager) up() {
	t.told(t.manager.Ready("takes work"))
	t.isUp.Store(true)
	ctx, end := context.WithCancel(context.Background())
	t.end = end
	t.watch.Go(func() {
		t.manager.Watch(ctx, t.core.alive, func(err error) {
			t.core.log.Error("the watchdog is not fed: the service manager will start the host anew", "error", err)
		})
	})
}

// stopping says that the host stops, and how long that may take. The watchdog is
// fed until stopped.
func (t *tellManager) stopping() {
	o := t.core.inForce().Orchestration
	left := time.Until(t.core.halt.until(o.DrainTimeout)) + o.EmergencyTimeout + 2*stopSlack
	t.told(t.manager.Stopping("finishes what runs", max(left, 0)))
}

func (t *tellManager) stopped() {
	t.end()
	t.watch.Wait()
}

// reloaded brackets a reload of a host that is up.
func (t *tellManager) reloaded(reload func()) {
	if !t.isUp.Load() {
		reload()
		return
	}
	t.told(t.manager.Reloading())
	reload()
	t.told(t.manager.Ready("takes work"))
}

func (t *tellManager) told(err error) {
	if err != nil {
		t.core.log.Warn("service manager", "error", err)
	}
}

// alive returns why the host does not work and a restart would help: a loop that
// hangs.
func (c *Core) alive() error {
	var stuck []error
	for _, l := range c.Engine.Loops() {
		if l.Stuck > 0 {
			stuck = append(stuck, fmt.Errorf("the %s loop is overdue for %s", l.Name, l.Stuck.Round(time.Second)))
		}
	}
	return errors.Join(stuck...)
}
