package pluginhost

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/artifact"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

const (
	drainCall = 250 * time.Millisecond // for an idle plugin to answer Drain
	killGrace = 500 * time.Millisecond // for it to exit
)

// generation is one process that serves handlers. Its number is unique over
// hosts and for ever.
type generation struct {
	number   uint64
	plugin   string // the name in the configuration
	version  string // as it describes itself
	handlers []string
	window   int
	artifact artifact.Artifact
	proc     *process.Process
	work     *stream
	since    time.Time

	leases atomic.Int64  // calls that have not ended
	idle   chan struct{} // signalled when leases falls to zero
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
		case <-g.work.broken:
			return nil // nothing will end by itself
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// retire ends the process for good: it waits for the calls until ctx ends,
// releases what is left with the reason, and stops the process. It returns what
// was left behind, or ctx's cause if calls were cut short.
func (g *generation) retire(ctx context.Context, reason, message string) (cut, left error) {
	cut = g.wait(ctx)
	grace := killGrace
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainCall)
	if _, err := g.proc.Plugin.Drain(drain, &pluginv1.DrainRequest{}); err != nil {
		grace = 0 // it does not answer: no use in asking it to exit
	}
	cancel()
	g.work.end(reason, message)
	return cut, g.proc.Stop(grace)
}
