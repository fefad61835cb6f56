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

// tellManager notifies the service manager, if there is one, about this host.
type tellManager struct {
	core    *Core
	manager *systemd.Manager // nil: there is none
	isUp    atomic.Bool      // the manager was told that the host is up
	watch   sync.WaitGroup
	end     context.CancelFunc
}

// up reports that the host is up, and starts to feed the watchdog.
func (t *tellManager) up() {
	t.told(t.manager.Ready("accepting work"))
	t.isUp.Store(true)
	ctx, end := context.WithCancel(context.Background())
	t.end = end
	t.watch.Go(func() {
		t.manager.Watch(ctx, t.core.alive, func(err error) {
			t.core.log.Error("the watchdog is not fed: the service manager will restart the host", "error", err)
		})
	})
}

// stopping reports that the host is stopping, and how long that may take from now on; again
// if that changes. The watchdog is fed until the host has stopped.
func (t *tellManager) stopping() {
	o := t.core.inForce().Orchestration
	left := time.Until(t.core.halt.until(o.DrainTimeout)) + o.EmergencyTimeout + 2*stopSlack
	t.told(t.manager.Stopping("finishing what runs", max(left, 0)))
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
	t.told(t.manager.Ready("accepting work"))
}

func (t *tellManager) told(err error) {
	if err != nil {
		t.core.log.Warn("service manager", "error", err)
	}
}

// alive returns an error if a loop hangs: the host does not work then, and a restart
// would help.
func (c *Core) alive() error {
	var stuck []error
	for _, l := range c.Engine.Loops() {
		if l.Stuck > 0 {
			stuck = append(stuck, fmt.Errorf("the %s loop is overdue by %s", l.Name, l.Stuck.Round(time.Second)))
		}
	}
	return errors.Join(stuck...)
}
