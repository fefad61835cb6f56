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
	drainCall = 250 * time.Millisecond // time for an idle plugin to answer Drain
	killGrace = 500 * time.Millisecond // time for it to exit
)

// generation is one process that serves a slot. Its number is unique across hosts and
// never reused.
type generation struct {
	number    uint64
	plugin    string // the slot's label
	version   string // as it describes itself
	sdk       string // the version of the SDK it was built with
	handlers  []string
	others    []target            // what it serves besides handlers
	abilities map[target][]string // what these can do, as it reports itself
	window    int
	runs      *release
	proc      *process.Process // set once, under the slot's lock; nil until the handshake is done
	work      *stream          // nil: it serves no handlers
	since     time.Time
	limits    string        // how they are enforced; set before the process starts
	limited   string        // the same in brief; empty: there are none
	own       time.Duration // of its start: from exec to the handshake
	stop      chan struct{} // closed when it is to end: nobody watches it from then on
	stopOnce  sync.Once

	leases atomic.Int64    // calls that have not ended
	idle   chan struct{}   // signalled when leases drops to zero
	recent *rollout.Record // results of the calls of the last minute; set when it described itself

	// For queries, which do not use the stream.
	breaker  *gobreaker.CircuitBreaker[struct{}]
	tripped  chan struct{}          // signalled when breaker opens
	mirror   chan struct{}          // semaphore: copies that a shadow may process at once
	mirrored atomic.Int64           // answered copies
	differed atomic.Int64           // copies that were answered differently
	compared atomic.Int64           // for a candidate: calls or copies in this step of its rollout
	poolsMu  sync.Mutex             // guards pools
	pools    map[[2]string]struct{} // algorithm and pool that it has learned something about

	// Guarded by the slot's lock.
	phase   journal.Phase
	moved   time.Time // when it entered the phase
	reason  string    // for the last phase change
	weight  int       // percent, for a canary
	cleanup bool      // its end is being taken care of
	tuned   *release  // what it runs, with settings changed since; nil: none have
	lost    bool      // it has ended on its own
	lostAt  time.Time
}

// current returns what it runs, with the current settings. The caller holds the slot's
// lock.
func (g *generation) current() *release { return cmp.Or(g.tuned, g.runs) }

// targets returns everything it serves.
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

// broken returns a channel that is closed when nothing will be answered any more.
func (g *generation) broken() <-chan struct{} {
	if g.work != nil {
		return g.work.broken
	}
	return g.proc.Exited()
}

// release returns n leases.
func (g *generation) release(n int) {
	if g.leases.Add(int64(-n)) == 0 {
		signal(g.idle)
	}
}

// wait waits until the calls have ended. The generation must already be out of the route
// table, or new calls will arrive.
func (g *generation) wait(ctx context.Context) error {
	for g.leases.Load() > 0 {
		select {
		case <-g.idle:
			if g.leases.Load() == 0 {
				signal(g.idle) // others may be waiting too
			}
		case <-g.broken():
			return nil // nothing will end on its own
		case <-ctx.Done():
			if g.leases.Load() > 0 {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// end ends the process for good. Calls that have not ended are released with the reason.
// It returns an error about anything left behind.
func (g *generation) end(reason, message string) error {
	g.stopOnce.Do(func() { close(g.stop) })
	grace := killGrace
	drain, cancel := context.WithTimeout(context.Background(), drainCall)
	if _, err := g.proc.Plugin.Drain(drain, &pluginv1.DrainRequest{}); err != nil {
		grace = 0 // it does not answer, so asking it to exit is pointless
	}
	cancel()
	if g.work != nil {
		g.work.end(reason, message)
	}
	return g.proc.Stop(grace)
}

// offers names everything the generation serves: handlers by their name, the rest with
// its kind.
func (g *generation) offers() []string {
	all := slices.Clone(g.handlers)
	for _, t := range g.others {
		all = append(all, t.kind+"/"+t.name)
	}
	return all
}
