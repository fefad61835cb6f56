package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sony/gobreaker/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// Errors of Scale, Check and Report: the caller decides what to do without an answer.
var (
	// ErrNoPlugin means that no plugin serves the name now.
	ErrNoPlugin = errors.New("no plugin currently serves it")
	// ErrTimeout means that the plugin did not answer in time.
	ErrTimeout = errors.New("the plugin did not answer in time")
	// ErrBroken means that the plugin ended, or that its answer cannot be used.
	ErrBroken = errors.New("the plugin is broken")
)

// Time limits for the answers of plugins.
const (
	scaleTimeout  = 5 * time.Second
	checkTimeout  = 10 * time.Second
	reportTimeout = 10 * time.Second
)

// Scale asks an algorithm how large pools should be. A pool must not be in more than one
// call at a time. The errors wrap one of those above, or the end of ctx.
func (h *Host) Scale(ctx context.Context, r *pluginv1.DecideRequest) (*pluginv1.DecideResponse, error) {
	q := query[*pluginv1.DecideResponse]{
		to: target{KindScaling, r.GetAlgorithm()}, limit: scaleTimeout,
		ask: func(ctx context.Context, g *generation) (*pluginv1.DecideResponse, error) {
			d, err := g.proc.Scaling.Decide(ctx, r)
			if err == nil && len(d.GetDecisions()) != len(r.GetObservations()) {
				err = fmt.Errorf("%w: %d decisions for %d observations", ErrBroken, len(d.GetDecisions()), len(r.GetObservations()))
			}
			if err == nil {
				g.learn(r)
			}
			return d, err
		},
		failed: func(d *pluginv1.DecideResponse) bool { return refused(d) > 0 },
		differ: func(a, b *pluginv1.DecideResponse) int {
			n := 0
			for i, d := range a.GetDecisions() {
				if d.GetTarget() != b.GetDecisions()[i].GetTarget() {
					n++
				}
			}
			return n
		},
	}
	if len(r.GetObservations()) > 0 {
		q.key = r.GetObservations()[0].GetPool()
	}
	return ask(ctx, h, q)
}

// Algorithm returns which plugin, and which generation of it, answers Scale for an
// algorithm now; 0: none does. known reports whether there is a plugin for it, even if it
// is down.
func (h *Host) Algorithm(name string) (plugin string, generation uint64, known bool) {
	g, known := h.router.answers(target{KindScaling, name})
	if g == nil {
		return "", 0, known
	}
	return g.plugin, g.number, true
}

func refused(d *pluginv1.DecideResponse) (n int) {
	for _, one := range d.GetDecisions() {
		if one.GetError() != "" {
			n++
		}
	}
	return n
}

// Check asks a reporter about the health of something.
func (h *Host) Check(ctx context.Context, name string) (*pluginv1.CheckResponse, error) {
	return ask(ctx, h, query[*pluginv1.CheckResponse]{
		to: target{KindHealth, name}, key: name, limit: checkTimeout,
		ask: func(ctx context.Context, g *generation) (*pluginv1.CheckResponse, error) {
			return g.proc.Health.Check(ctx, &pluginv1.CheckRequest{Name: name})
		},
		failed: func(c *pluginv1.CheckResponse) bool { return c.GetError() != "" },
		differ: func(a, b *pluginv1.CheckResponse) int {
			if worst(a) != worst(b) {
				return 1
			}
			return 0
		},
	})
}

// worst returns the worst status of a check, unknown being the best.
func worst(c *pluginv1.CheckResponse) (w pluginv1.CheckResult_Status) {
	for _, r := range c.GetResults() {
		if s := r.GetStatus(); s != pluginv1.CheckResult_STATUS_UNKNOWN {
			w = max(w, s)
		}
	}
	return w
}

// Report passes events to a reporter. No shadow gets a copy, because reports have outside
// effects.
func (h *Host) Report(ctx context.Context, r *pluginv1.ReportRequest) (*pluginv1.ReportResponse, error) {
	return ask(ctx, h, query[*pluginv1.ReportResponse]{
		to: target{KindHealth, r.GetName()}, key: r.GetName(), limit: reportTimeout,
		ask: func(ctx context.Context, g *generation) (*pluginv1.ReportResponse, error) {
			return g.proc.Health.Report(ctx, r)
		},
		failed: func(p *pluginv1.ReportResponse) bool { return p.GetError() != "" },
	})
}

// query is a call that has an answer but no lasting effect.
type query[T any] struct {
	to     target
	key    string        // calls with the same key go to the same generation
	limit  time.Duration // for the answer
	ask    func(context.Context, *generation) (T, error)
	failed func(T) bool     // whether the answer means that the call failed
	differ func(a, b T) int // in how many points; nil: no shadow gets a copy
}

// ask takes a lease on the serving generation, and calls it under a deadline and its
// breaker.
func ask[T any](ctx context.Context, h *Host, q query[T]) (T, error) {
	q.limit = max(q.limit, h.cfg.patience)
	g, shadow := h.router.acquireTarget(q.to, q.key)
	if g == nil {
		var none T
		return none, fmt.Errorf("%s: %w", q.to, ErrNoPlugin)
	}
	answer, err := askOne(ctx, g, q)
	g.release(1)
	if shadow != nil {
		mirror(h, shadow, q, answer, err)
	}
	if err != nil {
		return answer, fmt.Errorf("%s, generation %d: %w", q.to, g.number, err)
	}
	return answer, nil
}

func askOne[T any](ctx context.Context, g *generation, q query[T]) (answer T, err error) {
	began := time.Now()
	_, err = g.breaker.Execute(func() (struct{}, error) {
		limited, cancel := context.WithTimeoutCause(ctx, q.limit, ErrTimeout)
		defer cancel()
		answer, err = q.ask(limited, g)
		return struct{}{}, classify(ctx, limited, err)
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return answer, fmt.Errorf("%w: too many of its calls failed: %w", ErrBroken, err)
	}
	switch now := time.Now(); {
	case err == nil:
		g.recent.Add(q.to.String(), now, q.failed(answer), now.Sub(began))
	case ours(err):
		g.recent.AddBroken(q.to.String(), now)
	case ctx.Err() == nil:
		g.recent.Add(q.to.String(), now, true, now.Sub(began))
	}
	return answer, err
}

// classify maps the error of a call to one of those above.
func classify(ctx, limited context.Context, err error) error {
	switch {
	case err == nil || errors.Is(err, ErrBroken):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case limited.Err() != nil || status.Code(err) == codes.DeadlineExceeded:
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.Internal, codes.ResourceExhausted, codes.Unimplemented, codes.Unknown:
		return fmt.Errorf("%w: %w", ErrBroken, err)
	default:
		return err
	}
}

// ours reports whether an error is the fault of the process rather than of what it was
// asked.
func ours(err error) bool { return errors.Is(err, ErrTimeout) || errors.Is(err, ErrBroken) }

// newCallBreaker returns a breaker that opens when calls time out or break: half of at
// least twenty within ten seconds, or five in a row. trip is called when it opens, and
// must not block.
func newCallBreaker(name string, trip func()) *gobreaker.CircuitBreaker[struct{}] {
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name: name, MaxRequests: 3, Interval: 10 * time.Second, BucketPeriod: time.Second, Timeout: 5 * time.Second,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= 5 || c.Requests >= 20 && 2*c.TotalFailures >= c.Requests
		},
		IsSuccessful: func(err error) bool { return !ours(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				trip()
			}
		},
	})
}

// mirrors is how many copies of calls a shadow processes at once; further calls are not
// copied.
const mirrors = 8

// mirror sends a shadow a copy of a call and compares the answers. Nobody waits for it.
func mirror[T any](h *Host, shadow *generation, q query[T], want T, failure error) {
	select {
	case shadow.mirror <- struct{}{}:
	default:
		shadow.release(1)
		return
	}
	if q.differ == nil || failure != nil {
		<-shadow.mirror
		shadow.release(1)
		return
	}
	h.mirrors.Go(func() {
		defer shadow.release(1)
		defer func() { <-shadow.mirror }()
		got, err := askOne(context.Background(), shadow, q)
		differs := err != nil
		if err == nil {
			differs = q.differ(want, got) > 0
		}
		shadow.mirrored.Add(1)
		if differs {
			shadow.differed.Add(1)
			h.metrics.of(shadow.plugin).differed.Inc()
		}
	})
}

// maxPools is how many pools are carried over from one generation to the next.
const maxPools = 1000

// learn notes the pools that a generation has learned something about.
func (g *generation) learn(r *pluginv1.DecideRequest) {
	g.poolsMu.Lock()
	defer g.poolsMu.Unlock()
	for _, o := range r.GetObservations() {
		if len(g.pools) < maxPools {
			g.pools[[2]string{r.GetAlgorithm(), o.GetPool()}] = struct{}{}
		}
	}
}

// carryTimeout bounds all snapshots together.
const carryTimeout = 5 * time.Second

// carryOver passes what a generation has learned to its successor. What cannot be carried
// over is learned again.
func (s *slot) carryOver(ctx context.Context, from, to *generation) {
	ctx, cancel := context.WithTimeout(ctx, max(carryTimeout, s.host.cfg.patience))
	defer cancel()
	from.poolsMu.Lock()
	pools := make([][2]string, 0, len(from.pools))
	for p := range from.pools {
		pools = append(pools, p)
	}
	from.poolsMu.Unlock()
	for _, p := range pools {
		if !to.serves(target{KindScaling, p[0]}) {
			continue
		}
		snapshot, err := from.proc.Scaling.Snapshot(ctx, &pluginv1.SnapshotRequest{Algorithm: p[0], Pool: p[1]})
		if err == nil && len(snapshot.GetSnapshot()) > 0 {
			var restored *pluginv1.RestoreResponse
			restored, err = to.proc.Scaling.Restore(ctx, &pluginv1.RestoreRequest{Algorithm: p[0], Pool: p[1], Snapshot: snapshot.GetSnapshot()})
			if err == nil && restored.GetError() != "" {
				err = errors.New(clip(restored.GetError(), maxShown))
			}
		}
		if err != nil {
			s.log.Warn("what the algorithm has learned about a pool could not be carried over", "algorithm", p[0], "pool", p[1], "error", err)
		}
		to.learn(&pluginv1.DecideRequest{Algorithm: p[0], Observations: []*pluginv1.Observation{{Pool: p[1]}}})
	}
}
