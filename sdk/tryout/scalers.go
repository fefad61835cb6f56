package tryout

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// decisionTime returns how long a decision may take: it is computation without I/O.
func (s *suite) decisionTime() time.Duration { return max(time.Second, s.cfg.Patience/10) }

// scalers checks scaling algorithms.
func (s *suite) scalers(ctx context.Context) {
	slots := s.slots(wire.KindScaling)
	if len(slots) == 0 {
		return
	}
	s.check(ctx, "scaling: an unknown algorithm", s.withInstance(func(ctx context.Context, i *Instance) error {
		_, err := i.Scaling.Decide(ctx, &pluginv1.DecideRequest{Algorithm: nobody})
		if status.Code(err) != codes.NotFound {
			return fmt.Errorf("it ends with code %s: want NotFound", status.Code(err))
		}
		return nil
	}))
	for _, slot := range slots {
		a := algorithm{slot.GetName(), s.decisionTime()}
		for _, c := range situations {
			s.check(ctx, fmt.Sprintf("scaling %s: %s", a.name, c.name), s.withInstance(func(ctx context.Context, i *Instance) error {
				_, err := a.decide(ctx, i, c.observe("tryout-"+c.name))
				return err
			}))
		}
		s.check(ctx, fmt.Sprintf("scaling %s: the same observations, the same decisions", a.name), s.withInstance(a.repeats))
		s.check(ctx, fmt.Sprintf("scaling %s: a snapshot can be restored", a.name), s.twoInstances(a.remembers))
		s.check(ctx, fmt.Sprintf("scaling %s: a foreign snapshot does no harm", a.name), s.withInstance(a.survives))
	}
}

func (s *suite) withInstance(f func(context.Context, *Instance) error) func(context.Context) error {
	return func(ctx context.Context) error {
		i, err := s.ready(ctx)
		if err != nil {
			return err
		}
		return f(ctx, i)
	}
}

// twoInstances calls f with the current instance and a newly started one.
func (s *suite) twoInstances(f func(ctx context.Context, old, next *Instance) error) func(context.Context) error {
	return s.withInstance(func(ctx context.Context, old *Instance) error {
		next, err := s.fresh(ctx)
		if err != nil {
			return err
		}
		defer next.Close()
		if err := next.Configure(ctx, s.cfg.Options); err != nil {
			return err
		}
		return f(ctx, old, next)
	})
}

// situations are observations that any algorithm must be able to answer.
var situations = []struct {
	name    string
	observe func(pool string) scaler.Observation
}{
	{"nothing was measured", func(pool string) scaler.Observation { return observe(pool, 0, sampleAt) }},
	{"a quiet pool", func(pool string) scaler.Observation {
		return observe(pool, 30, func(_ int, s *scaler.Sample) { *s = scaler.Sample{At: s.At, Span: s.Span, Size: s.Size} })
	}},
	{"a busy pool", func(pool string) scaler.Observation { return observe(pool, 30, sampleAt) }},
	{"a pool at its upper bound", func(pool string) scaler.Observation {
		o := observe(pool, 30, sampleAt)
		o.Current, o.Target, o.Max, o.BudgetLeft = 10, 10, 10, 0
		return o
	}},
	{"an empty pool", func(pool string) scaler.Observation {
		o := observe(pool, 3, func(_ int, s *scaler.Sample) { s.Size, s.Completions, s.Utilization = 0, 0, 0 })
		o.Current, o.Target, o.Min = 0, 0, 0
		return o
	}},
	{"extreme numbers", func(pool string) scaler.Observation {
		o := observe(pool, 3, func(_ int, s *scaler.Sample) {
			s.Arrivals, s.Completions, s.Errors, s.QueueDepth = math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64
			s.OldestAge, s.LatencyP99, s.Span = 1000*time.Hour, 1000*time.Hour, time.Microsecond
		})
		o.Max, o.BudgetLeft = math.MaxInt32, math.MaxInt32
		return o
	}},
}

// observe returns an observation with n samples of ten seconds each.
func observe(pool string, n int, shape func(i int, s *scaler.Sample)) scaler.Observation {
	now := time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)
	o := scaler.Observation{
		Pool: pool, Kind: "handler", Now: now, State: "normal", Current: 4, Target: 4, Min: 1, Max: 20, BudgetLeft: 16,
		ChangedAt: now.Add(-time.Hour),
	}
	const span = 10 * time.Second
	for i := range n {
		s := scaler.Sample{At: now.Add(-span * time.Duration(n-1-i)), Span: span, Size: 4}
		sampleAt(i, &s)
		shape(i, &s)
		o.Samples = append(o.Samples, s)
	}
	return o
}

// sampleAt fills in sample i of a pool whose load grows.
func sampleAt(i int, s *scaler.Sample) {
	s.Arrivals, s.Completions, s.Errors = int64(100+10*i), int64(100+8*i), int64(i%3)
	s.QueueDepth, s.OldestAge = int64(2*i*i), time.Duration(i)*time.Second
	s.LatencyP50, s.LatencyP95, s.LatencyP99 = 50*time.Millisecond, 200*time.Millisecond, time.Duration(300+i)*time.Millisecond
	s.Utilization = min(1, 0.5+0.02*float64(i))
}

type algorithm struct {
	name  string
	limit time.Duration // for a decision
}

func (a algorithm) decide(ctx context.Context, i *Instance, all ...scaler.Observation) ([]scaler.Decision, error) {
	started := time.Now()
	decisions, err := i.decide(ctx, a.name, all...)
	if took := time.Since(started); err == nil && took > a.limit {
		return nil, fmt.Errorf("the answer took %s: want at most %s", took.Round(time.Millisecond), a.limit)
	}
	return decisions, err
}

// series returns the observation of a pool at a turn; turns are ten seconds apart.
func series(pool string, turn int) scaler.Observation {
	o := observe(pool, min(turn+1, 30), sampleAt)
	shift := time.Duration(turn) * 10 * time.Second
	o.Now = o.Now.Add(shift)
	for i := range o.Samples {
		o.Samples[i].At = o.Samples[i].At.Add(shift)
	}
	return o
}

const turns = 12

// repeats shows the same to two pools, and something else to a third in between.
func (a algorithm) repeats(ctx context.Context, i *Instance) error {
	for turn := range turns {
		other := observe("tryout-other", 5, func(n int, s *scaler.Sample) { s.QueueDepth, s.Utilization = int64(n), 0.1 })
		other.Now = other.Now.Add(time.Duration(turn) * 10 * time.Second)
		first, second := series("tryout-first", turn), series("tryout-second", turn)
		decisions, err := a.decide(ctx, i, first, other, second)
		if err != nil {
			return err
		}
		if one, two := decisions[0], decisions[2]; one.Target != two.Target || one.Confidence != two.Confidence {
			return fmt.Errorf("two pools with the same observations get the targets %d and %d (confidence %g and %g): a decision must depend on nothing else, and what is known about one pool must not affect another",
				one.Target, two.Target, one.Confidence, two.Confidence)
		}
	}
	return nil
}

// remembers lets one process learn and another take over, and checks that both make
// the same next decision.
func (a algorithm) remembers(ctx context.Context, old, next *Instance) error {
	const pool = "tryout-memory"
	for turn := range turns {
		if _, err := a.decide(ctx, old, series(pool, turn)); err != nil {
			return err
		}
	}
	answer, err := old.Scaling.Snapshot(ctx, &pluginv1.SnapshotRequest{Algorithm: a.name, Pool: pool})
	switch {
	case status.Code(err) == codes.Unimplemented, err == nil && answer.GetError() == "" && len(answer.GetSnapshot()) == 0:
		return skipped("it has no memory, or takes no snapshots of it")
	case err != nil:
		return fmt.Errorf("snapshot: %w", err)
	case answer.GetError() != "":
		return fmt.Errorf("snapshot: %s", answer.GetError())
	case len(answer.GetSnapshot()) > scaler.MaxSnapshotBytes:
		return fmt.Errorf("the snapshot has %d bytes: want at most %d", len(answer.GetSnapshot()), scaler.MaxSnapshotBytes)
	}
	restored, err := next.Scaling.Restore(ctx, &pluginv1.RestoreRequest{Algorithm: a.name, Pool: pool, Snapshot: answer.GetSnapshot()})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if restored.GetError() != "" {
		return fmt.Errorf("it refuses its own snapshot: %s", restored.GetError())
	}
	want, err := a.decide(ctx, old, series(pool, turns))
	if err != nil {
		return err
	}
	got, err := a.decide(ctx, next, series(pool, turns))
	if err != nil {
		return err
	}
	if got[0].Target != want[0].Target {
		return fmt.Errorf("after a restore the target is %d, without one it is %d: the snapshot is incomplete", got[0].Target, want[0].Target)
	}
	return nil
}

// survives checks that the plugin answers a snapshot that it did not write, and still
// decides after it.
func (a algorithm) survives(ctx context.Context, i *Instance) error {
	const pool = "tryout-foreign"
	_, err := i.Scaling.Restore(ctx, &pluginv1.RestoreRequest{
		Algorithm: a.name, Pool: pool, Snapshot: []byte("\x00\xff not a snapshot of yours {"),
	})
	if err != nil && status.Code(err) != codes.Unimplemented {
		return fmt.Errorf("restore: %w: want an answer that says what is wrong", err)
	}
	if _, err := a.decide(ctx, i, series(pool, 3)); err != nil {
		return errors.Join(errors.New("after a snapshot that it refused"), err)
	}
	return nil
}
