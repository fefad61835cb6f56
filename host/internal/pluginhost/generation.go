package pluginhost

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/rollout"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

const (
	drainCall = 250 * time.Millisecond // for an idle plugin to answer Drain
	killGrace = 500 * time.Millisecond // for it to exit
)

// generation is one process that serves a slot. Its number is unique over hosts
// and for ever.
type generation struct {
	number    uint64
	plugin    string // the slot's label
	version   string // as it describes itself
	sdk       string // the version of the SDK that it was built with
	handlers  []string
	others    []target            // what it serves beside handlers
	abilities map[target][]string // what these can do, by their own account
	window    int
	runs      *release
	proc      *process.Process // set once, under the slot's lock; nil until it has made the handshake
	work      *stream          // nil: it serves no handlers
	since     time.Time
	limits    string        // how they are enforced; set before the process
	limited   string        // the same in few words; empty: there are none
	own       time.Duration // of its start: from execution to the handshake
	stop      chan struct{} // closed when its end is wanted: nobody watches it any more
	stopOnce  sync.Once

	leases atomic.Int64    // calls that have not ended
	idle   chan struct{}   // signalled when leases falls to zero
	recent *rollout.Record // what came of the calls of the last minute; set when it has described itself

	// For what has no stream.
	breaker  *gobreaker.CircuitBreaker[struct{}]
	tripped  chan struct{}          // signalled when breaker opens
	mirror   chan struct{}          // a place for each copy that a shadow has
	mirrored atomic.Int64           // copies that were answered
	differed atomic.Int64           // of these, differently
	compared atomic.Int64           // of a candidate: calls or copies in this step of its rollout
	poolsMu  sync.Mutex             // guards pools
	pools    map[[2]string]struct{} // algorithm and pool of which it has learned something

	// Guarded by the slot's lock.
	phase   journal.Phase
	moved   time.Time // into the phase
	reason  string    // of the last move
	weight  int       // percent, of a canary
	cleanup bool      // its end is taken care of
	tuned   *release  // what it runs, with settings that have changed since; nil: none have
	lost    bool      // it has ended by itself
	lostAt  time.Time
}

// current returns what it runs, with the settings as they are now. The caller holds
// the slot's lock.
func (g *generation) current() *release { return cmp.Or(g.tuned, g.runs) }

// targets returns all that it serves.
func (g *generation) targets() []target {
	all := make([]target, 0, len(g.handlers)+len(g.others))
	for _, h := range g.handlers {
		all = append(all, target{KindHandler, h})
	}
	return append(all, g.others...)
}

func (g *generation) serves(t target) bool {
	if t.kind == KindHandler {
		_, ok := slices.BinarySearch(g.handlers, t.name)
		return ok
	}
	return slices.Contains(g.others, t)
}

// broken is closed when nothing will be answered any more.
func (g *generation) broken() <-chan struct{} {
	if g.work != nil {
		return g.work.broken
	}
	return g.proc.Exited()
}

// release gives n leases back.
func (g *generation) release(n int) {
	if g.leases.Add(int64(-n)) == 0 {
		signal(g.idle)
	}
}

// wait waits until the calls have ended. The generation must be out of the
// route table, or there will be more.
func (g *generation) wait(ctx context.Context) error {
	for g.leases.Load() > 0 {
		select {
		case <-g.idle:
			if g.leases.Load() == 0 {
				signal(g.idle) // others may wait too
			}
		case <-g.broken():
			return nil // nothing will end by itself
		case <-ctx.Done():
			if g.leases.Load() > 0 {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// end ends the process for good. Calls that have not ended are released with the
// reason. It returns what was left behind.
func (g *generation) end(reason, message string) error {
	g.stopOnce.Do(func() { close(g.stop) })
	grace := killGrace
	drain, cancel := context.WithTimeout(context.Background(), drainCall)
	if _, err := g.proc.Plugin.Drain(drain, &pluginv1.DrainRequest{}); err != nil {
		grace = 0 // it does not answer: no use in asking it to exit
	}
	cancel()
	if g.work != nil {
		g.work.end(reason, message)
	}
	return g.proc.Stop(grace)
}

// offers names all that the generation serves: handlers as they are, the rest with
// its kind.
func (g *generation) offers() []string {
	all := slices.Clone(g.handlers)
	for _, t := range g.others {
		all = append(all, t.kind+"/"+t.name)
	}
	return all
}
