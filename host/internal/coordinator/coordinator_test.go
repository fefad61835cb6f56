package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/coordinator"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/scaling/builtin"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// executors is a pool whose work follows a formula.
type executors struct {
	mu     sync.Mutex
	size   int
	pace   pool.Pace
	paused bool
	sizes  []int // as they were set
	cut    time.Time
	load   func() scaler.Sample // what happens in a second
	cuts   int
	works  int // executors at work
	lost   int // stuck and replaced
}

func (e *executors) Resize(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.size = n
	e.sizes = append(e.sizes, n)
}

func (e *executors) Tune(p pool.Pace) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pace = p
}

func (e *executors) Pause(p bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.paused = p
}

func (e *executors) State() pool.State {
	e.mu.Lock()
	defer e.mu.Unlock()
	return pool.State{Size: e.size, Running: e.works, Paused: e.paused, Lost: e.lost, Restarts: e.lost}
}

func (e *executors) Cut(elsewhere int64, oldest time.Duration) (scaler.Sample, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	s := e.load()
	s.At, s.Span, s.Size = now, now.Sub(e.cut), e.size
	s.QueueDepth, s.OldestAge = s.QueueDepth+elsewhere, oldest
	e.cut = now
	e.cuts++
	return s, s.Span > 0
}

// world is a host with one pool.
type world struct {
	mu         sync.Mutex
	pool       coordinator.Pool
	backlog    coordinator.Backlog
	unknown    error // for backlogs
	facts      coordinator.Facts
	state      opstate.State
	algorithms map[string]scaler.Scaler
}

func (w *world) Pools() []coordinator.Pool { return []coordinator.Pool{w.pool} }

func (w *world) State() opstate.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

func (w *world) Backlogs(_ context.Context, queues []string) (map[string]coordinator.Backlog, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := map[string]coordinator.Backlog{}
	for _, q := range queues {
		found[q] = w.backlog
	}
	if w.unknown != nil {
		return nil, w.unknown
	}
	return found, nil
}

func (w *world) Facts(context.Context) (coordinator.Facts, error) { return w.facts, nil }

func (w *world) Algorithm(spec string) (scaler.Scaler, error) {
	if s := w.algorithms[spec]; s != nil {
		return s, nil
	}
	made, err := builtin.New(spec, nil)
	if err != nil {
		return nil, err
	}
	return made(), nil
}

// bundle is a coordinator whose ticks the test controls.
type bundle struct {
	*coordinator.Coordinator
	world     *world
	executors *executors
	cfg       coordinator.Config
	reg       *prometheus.Registry
}

const name = "step_execution.shop"

func policy() scaling.Policy {
	second := scaling.Duration(time.Second)
	return scaling.Policy{
		CooldownUp: second, CooldownDown: 15 * second, DeadBand: 0.1, Stabilization: 60 * second, Reversal: 30 * second, Stale: 10 * second,
	}
}

func setup(algorithm scaler.Scaler, change ...func(*bundle)) *bundle {
	e := &executors{size: 4, cut: time.Now().Add(-time.Second)}
	e.load = func() scaler.Sample { return scaler.Sample{} }
	b := &bundle{
		executors: e, reg: prometheus.NewRegistry(),
		world: &world{
			pool:  coordinator.Pool{Kind: "step_execution", Namespace: "shop", Queues: []string{"shop_queue"}, Executors: e},
			state: opstate.Normal, algorithms: map[string]scaler.Scaler{"mine": algorithm}, facts: coordinator.Facts{Connections: 10},
		},
		cfg: coordinator.Config{
			Enabled: true, Interval: 500 * time.Millisecond, Timeout: 100 * time.Millisecond, Policy: policy(), MemoryShare: 0.8,
			Settings: func(string, string) coordinator.Settings {
				return coordinator.Settings{Min: 2, Max: 20, Algorithm: "mine"}
			},
		},
	}
	for _, f := range change {
		f(b)
	}
	b.Coordinator = coordinator.New(b.cfg, b.world, b.reg, hclog.NewNullLogger())
	return b
}

// tick lets a second pass and waits for the decision; only within synctest.
func (b *bundle) tick(t *testing.T) scaling.Decision {
	t.Helper()
	<-time.After(time.Second)
	b.Tick(t.Context())
	<-time.After(200 * time.Millisecond)
	synctest.Wait()
	h, err := b.History(name, 1, false)
	require.NoError(t, err)
	require.NotEmpty(t, h)
	return h[0]
}

func says(target int) scaler.Scaler {
	return scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) {
		return scaler.Decision{Target: target, Reason: "the test says so", Confidence: 1}, nil
	})
}

func TestAPoolGetsTheSizeThatItsAlgorithmAdvises(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen scaler.Observation
		b := setup(scaler.Func(func(_ context.Context, o scaler.Observation) (scaler.Decision, error) {
			seen = o
			return scaler.Decision{Target: 9, Reason: "nine", Confidence: 1}, nil
		}))
		b.executors.load = func() scaler.Sample {
			return scaler.Sample{Arrivals: 5, Completions: 7, Errors: 1, Utilization: 0.5, QueueDepth: 2}
		}
		b.world.backlog = coordinator.Backlog{Waiting: 30, Oldest: time.Minute}
		d := b.tick(t)
		require.Equal(t, []int{4, 9}, []int{d.From, d.To})
		require.Equal(t, 9, b.executors.size)
		require.Equal(t, "nine", d.Reason)
		require.Equal(t, []any{name, "step_execution", "shop", "normal", 4, 4, 2, 20},
			[]any{seen.Pool, seen.Kind, seen.Namespace, seen.State, seen.Current, seen.Target, seen.Min, seen.Max})
		last, _ := seen.Last()
		require.Equal(t, []int64{5, 7, 1, 32}, []int64{last.Arrivals, last.Completions, last.Errors, last.QueueDepth})
		require.Equal(t, time.Minute, last.OldestAge)

		// What came into the queue counts as arrived; what was taken from it had arrived
		// before.
		b.world.backlog.Waiting = 40
		b.tick(t)
		last, _ = seen.Last()
		require.Equal(t, int64(15), last.Arrivals)
		b.world.backlog.Waiting = 38
		b.tick(t)
		last, _ = seen.Last()
		require.Equal(t, int64(3), last.Arrivals)
		require.Len(t, seen.Samples, 3)

		s, err := b.Pool(name)
		require.NoError(t, err)
		require.Equal(t, []int{9, 9}, []int{s.Size, s.Target})
		changes, err := b.History(name, 10, true)
		require.NoError(t, err)
		require.Len(t, changes, 1)
		all, err := b.Samples(name, time.Time{}, 2)
		require.NoError(t, err)
		require.Len(t, all, 2)
		rest, err := b.Samples(name, all[1].At, 5)
		require.NoError(t, err)
		require.Len(t, rest, 1)
	})
}

// Whatever an algorithm does wrong, the pool keeps its size and says why.
func TestABadAlgorithmHoldsThePool(t *testing.T) {
	t.Parallel()
	answer := func(d scaler.Decision, err error) scaler.Scaler {
		return scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) { return d, err })
	}
	for reason, algorithm := range map[string]scaler.Scaler{
		"held: the algorithm failed: it is ill":   answer(scaler.Decision{}, errors.New("it is ill")),
		"more than 100 times the largest allowed": says(1_000_000),
		"the target is -3":                        says(-3),
		"the confidence is NaN":                   answer(scaler.Decision{Target: 5, Reason: "r", Confidence: math.NaN()}, nil),
		"the confidence is +Inf":                  answer(scaler.Decision{Target: 5, Reason: "r", Confidence: math.Inf(1)}, nil),
		"panic: out of range":                     scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) { panic("out of range") }),
		"held: the algorithm did not answer in time": scaler.Func(func(ctx context.Context, _ scaler.Observation) (scaler.Decision, error) {
			<-ctx.Done()
			return scaler.Decision{}, ctx.Err()
		}),
		`held: there is no algorithm "mine"; there are threshold,`: nil,
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(algorithm)
				if algorithm == nil {
					delete(b.world.algorithms, "mine")
				}
				d := b.tick(t)
				require.Contains(t, d.Reason, reason)
				require.Nil(t, d.Advice)
				require.Equal(t, []int{4, 4, 4}, []int{d.From, d.To, b.executors.size})
			})
		})
	}
}

func TestWithoutMeasurementsThePoolHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(9))
		b.world.unknown = errors.New("the database is away")
		require.Equal(t, "held: nothing was measured", b.tick(t).Reason)
		b.world.unknown = nil
		require.Equal(t, 9, b.tick(t).To)
		b.world.unknown = errors.New("the database is away")
		<-time.After(9 * time.Second)
		require.Contains(t, b.tick(t).Reason, "held: the latest sample is 10.2s old", "missing is not zero")
	})
}

func TestOnlyAHostInNormalStateScales(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(9))
		for _, s := range opstate.States {
			b.world.state = s
			<-time.After(time.Second)
			b.Tick(t.Context())
			synctest.Wait()
			want := 4
			if s == opstate.Normal {
				want = 9
			}
			require.Equal(t, want, b.executors.size, s)
			b.executors.size = 4
		}
	})
}

func TestWithoutAutoScalingThePoolStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(9), func(b *bundle) { b.cfg.Enabled = false })
		<-time.After(time.Second)
		b.Tick(t.Context())
		synctest.Wait()
		require.Equal(t, 4, b.executors.size)
		_, _, err := b.Set(t.Context(), name, coordinator.Change{Min: new(7)})
		require.NoError(t, err)
		require.Equal(t, 7, b.executors.size, "the bounds hold all the same")
		s, err := b.Pool(name)
		require.NoError(t, err)
		require.NotNil(t, s.Sample, "and it is measured")
	})
}

// An algorithm that hangs holds its pool's size; the ticks continue and skip it.
func TestASlowAlgorithmIsNotAskedTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		b := setup(scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) {
			asked++
			<-time.After(10 * time.Second) // ignores its deadline
			return scaler.Decision{Target: 9, Reason: "late", Confidence: 1}, nil
		}))
		for range 5 {
			<-time.After(time.Second)
			b.Tick(t.Context())
		}
		synctest.Wait()
		require.Equal(t, 1, asked)
		<-time.After(10 * time.Second)
		synctest.Wait()
		h, err := b.History(name, 5, false)
		require.NoError(t, err)
		require.Len(t, h, 1)
		require.Contains(t, h[0].Reason, "held: the algorithm did not answer in time")
		require.Equal(t, 4, b.executors.size)
	})
}

func TestAShadowIsRecordedAndHasNoEffect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(9))
		b.world.algorithms["other"] = says(13)
		_, _, err := b.Set(t.Context(), name, coordinator.Change{Shadow: new("other")})
		require.NoError(t, err)
		d := b.tick(t)
		require.Equal(t, 9, d.To)
		require.Equal(t, &scaling.Shadow{Algorithm: "other", Advice: &scaling.Advice{Target: 13, Reason: "the test says so", Confidence: 1}, To: 13, Reason: "the test says so"}, d.Shadow)
		require.Equal(t, 9, b.executors.size)
	})
}

func TestSetRefusesWhatMakesNoSense(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(9))
		for want, change := range map[string]coordinator.Change{
			"min is 0: want 1 or more":                  {Min: new(0)},
			"max is 1: want min, 2, or more":            {Max: new(1)},
			"max is 100001":                             {Max: new(100_001)},
			`algorithm: there is no algorithm "nobody"`: {Algorithm: new("nobody")},
			"a pool needs an algorithm":                 {Algorithm: new("")},
			`shadow: there is no algorithm "nobody"`:    {Shadow: new("nobody")},
		} {
			_, _, err := b.Set(t.Context(), name, change)
			require.ErrorContains(t, err, want)
			_, ok := errors.AsType[*coordinator.RefusedError](err)
			require.True(t, ok)
		}
		_, _, err := b.Set(t.Context(), "nobody", coordinator.Change{})
		require.ErrorIs(t, err, coordinator.ErrNoPool)
		require.ErrorContains(t, err, `pool "nobody": no such pool; available: `+name, "the error lists the pools")
		s, err := b.Pool(name)
		require.NoError(t, err)
		require.False(t, s.Overrides, "nothing has changed")

		s, _, err = b.Set(t.Context(), name, coordinator.Change{Min: new(6), Max: new(8)})
		require.NoError(t, err)
		require.True(t, s.Overrides)
		require.Equal(t, 6, b.executors.size, "at once")
		require.Equal(t, 8, b.tick(t).To)

		// A new configuration takes effect where it changes the pool.
		b.Reload(b.cfg)
		require.Equal(t, 8, b.executors.size)
		b.cfg.Settings = func(string, string) coordinator.Settings {
			return coordinator.Settings{Min: 1, Max: 3, Algorithm: "mine"}
		}
		b.Reload(b.cfg)
		require.Equal(t, 3, b.executors.size)
	})
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(9))
		s, err := b.Pause(name, true, "ops", "the shop moves")
		require.NoError(t, err)
		require.Equal(t, []string{"ops", "the shop moves"}, []string{s.Pause.By, s.Pause.Reason})
		require.True(t, b.executors.paused)
		<-time.After(time.Second)
		b.Tick(t.Context())
		synctest.Wait()
		require.Equal(t, 4, b.executors.size, "no decisions are made about it meanwhile")
		s, err = b.Pause(name, false, "ops", "")
		require.NoError(t, err)
		require.Nil(t, s.Pause)
		require.False(t, b.executors.paused)
		require.Equal(t, 9, b.tick(t).To)
	})
}

// With any built-in algorithm and any advice, through the coordinator: the bounds hold,
// nothing changes within a cooldown, and the pool changes direction at most once per
// window.
func TestThePolicyHoldsThroughTheCoordinator(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			target := 0
			b := setup(scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) {
				return scaler.Decision{Target: target, Reason: "r", Confidence: 1}, nil
			}))
			p := policy()
			size, least, most := 4, 2, 20
			up := false
			var changed, turned time.Time
			for range rapid.IntRange(1, 120).Draw(rt, "ticks") {
				target = rapid.IntRange(-2, 40).Draw(rt, "advice")
				if rapid.IntRange(0, 9).Draw(rt, "set") == 0 {
					least = rapid.IntRange(1, 10).Draw(rt, "min")
					most = rapid.IntRange(least, 30).Draw(rt, "max")
					_, _, err := b.Set(t.Context(), name, coordinator.Change{Min: &least, Max: &most})
					require.NoError(t, err)
					size = min(max(size, least), most)
					require.Equal(t, size, b.executors.size)
				}
				d := b.tick(t)
				require.GreaterOrEqual(t, d.To, least)
				require.LessOrEqual(t, d.To, most)
				require.Equal(t, b.executors.size, d.To)
				if d.To == size {
					continue
				}
				cooldown := p.CooldownDown.D()
				if d.To > size {
					cooldown = p.CooldownUp.D()
				}
				require.True(t, changed.IsZero() || d.At.Sub(changed) >= cooldown)
				if !changed.IsZero() && up != (d.To > size) {
					require.True(t, turned.IsZero() || d.At.Sub(turned) >= p.Reversal.D())
					turned = d.At
				}
				changed, up, size = d.At, d.To > size, d.To
			}
		})
	})
}

// served is a pool under load: arrivals per second, each with so many seconds of work.
func served(b *bundle, arrivals func() int64, service float64) {
	var queue int64
	b.executors.load = func() scaler.Sample {
		in := arrivals()
		queue += in
		span := time.Since(b.executors.cut).Seconds()
		out := min(queue, int64(float64(b.executors.size)*span/service))
		queue -= out
		return scaler.Sample{
			Arrivals: in, Completions: out, QueueDepth: queue,
			Utilization: min(float64(out)*service/(float64(b.executors.size)*span), 1), LatencyP95: time.Duration(service * float64(time.Second)),
		}
	}
}

// Under a constant load, every built-in algorithm settles at a size that can handle it.
func TestAConstantLoadSettles(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"threshold", "target", "rate", "latency", "cost", "predictive"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(nil)
				served(b, func() int64 { return 60 }, 0.1)
				_, _, err := b.Set(t.Context(), name, coordinator.Change{Algorithm: &algorithm})
				require.NoError(t, err)
				size, last := 0, 0
				for i := range 600 {
					if d := b.tick(t); d.Changed() {
						last, size = i, d.To
					}
				}
				require.Less(t, last, 300, "it changed late")
				require.GreaterOrEqual(t, size*10, 50, "50 arrive per second, an executor does 10")
				require.LessOrEqual(t, size, 20)
			})
		})
	}
}

// Under a noisy load, the pool changes direction at most once per window with every
// built-in algorithm.
func TestANoisyLoadDoesNotMakeThePoolSwing(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"threshold", "target", "rate", "latency", "cost"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(nil)
				chance := rand.New(rand.NewPCG(1, 2))
				served(b, func() int64 { return chance.Int64N(160) }, 0.1)
				_, _, err := b.Set(t.Context(), name, coordinator.Change{Algorithm: &algorithm})
				require.NoError(t, err)
				var turns []time.Time
				up, any := false, false
				for range 900 {
					d := b.tick(t)
					if !d.Changed() {
						continue
					}
					if grows := d.To > d.From; any && grows != up {
						turns = append(turns, d.At)
					}
					up, any = d.To > d.From, true
				}
				t.Logf("%d reversals in 18 minutes", len(turns))
				for i := 1; i < len(turns); i++ {
					require.GreaterOrEqual(t, turns[i].Sub(turns[i-1]), policy().Reversal.D())
				}
				require.LessOrEqual(t, len(turns), 18, "one a minute")
			})
		})
	}
}

func TestReserve(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{4: 2, 10: 2, 20: 4, 21: 4, 30: 6, 50: 10, 60: 12, 100: 20, 120: 24, 400: 80, 30_000: 6000} {
		require.Equal(t, want, coordinator.Reserve(n), n)
	}
}

func TestResourcesAreChecked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for want, change := range map[string]func(*bundle){
			"": func(b *bundle) { b.world.facts.Connections, b.world.pool.Memory = 40, 8<<20 }, // what is free is not known
			"the pools may take 20 connections (step_execution.shop 20) and leave less than the reserve: database.max_connections 24 - 5 in reserve = 19": func(b *bundle) {
				b.world.facts.Connections = 24
			},
			"! the pools may take 20 connections (step_execution.shop 20), but have database.max_connections 10 - 2 in reserve = 8": func(*bundle) {},
			"! the pools need at least 2 connections, but have database.max_connections 3 - 2 in reserve = 1":                       func(b *bundle) { b.world.facts.Connections = 3 },
			"the hosts may take 85 connections (this one 40 + 2 others 45), but the server has max_connections 97 - 19 in reserve = 78": func(b *bundle) {
				b.world.facts = coordinator.Facts{Connections: 40, ServerMax: 97, OtherHosts: 2, OthersTake: 45}
			},
			"! the hosts may take 100 connections (this one 40 + 2 others 60), but the server has max_connections 97 - 19 in reserve = 78": func(b *bundle) {
				b.world.facts = coordinator.Facts{Connections: 40, ServerMax: 97, OtherHosts: 2, OthersTake: 60}
			},
			"the pools may take 160 MiB of memory, but 100 MiB are free and they may take 80% of that: 80 MiB": func(b *bundle) {
				b.world.pool.Memory = 8 << 20
				b.world.facts = coordinator.Facts{Connections: 40, MemoryFree: 100 << 20}
			},
		} {
			b := setup(says(9), func(b *bundle) { b.world.pool.Connections, b.cfg.Enforce = 1, true }, change)
			found, err := b.CheckResources(t.Context())
			switch {
			case want == "":
				require.Empty(t, found)
				require.NoError(t, err)
			case want[0] == '!':
				require.Equal(t, []string{want[2:]}, found)
				require.EqualError(t, err, want[2:])
			default:
				require.Equal(t, []string{want}, found)
				require.NoError(t, err)
			}
		}
	})
}

// A change beyond the resources is refused or causes a warning; one that asks for less is
// always made.
func TestSetIsCheckedAgainstTheResources(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(9), func(b *bundle) {
			b.world.pool.Connections, b.cfg.Enforce, b.world.facts.Connections = 1, true, 15
		})
		s, warnings, err := b.Set(t.Context(), name, coordinator.Change{Max: new(16)})
		require.NoError(t, err)
		require.Equal(t, 16, s.Max)
		require.Len(t, warnings, 1)
		_, _, err = b.Set(t.Context(), name, coordinator.Change{Max: new(17)})
		require.EqualError(t, err, "the pools may take 17 connections (step_execution.shop 17), but have database.max_connections 15 - 3 in reserve = 12")
		b.cfg.Enforce = false
		b.Reload(b.cfg)
		s, warnings, err = b.Set(t.Context(), name, coordinator.Change{Max: new(30)})
		require.NoError(t, err)
		require.Equal(t, 30, s.Max)
		require.Len(t, warnings, 1)
	})
}

func TestTheBudgetBoundsWhatAnAlgorithmGets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(18), func(b *bundle) { b.world.pool.Connections, b.world.facts.Connections = 1, 12 })
		d := b.tick(t) // 12 - 2 in reserve - 4 there are
		require.Equal(t, []int{6, 10}, []int{d.BudgetLeft, d.To})
		require.Equal(t, scaling.RuleBudget, d.Clamps[0].Rule)
	})
}

func TestMoreThanIsOfUseIsNotGiven(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(18), func(b *bundle) { b.world.pool.Useful = 7 })
		require.Equal(t, 7, b.tick(t).To)
	})
}

// The loop runs until it is stopped, and leaves nothing behind.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(9))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		<-time.After(3 * time.Second)
		require.Equal(t, 9, b.executors.State().Size)
		stop()
		require.NoError(t, <-done)
		h, err := b.History(name, 50, false)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(h), 5, fmt.Sprint(len(h)))
	})
}

// A host at rest does not ask the database twice a second for the backlog; one at work
// does, and so does one whose pool is still larger than necessary.
func TestRestCostsLittle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(says(2)) // the minimum
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		cuts := func(length time.Duration, works int) int {
			b.executors.mu.Lock()
			b.executors.works = works
			before := b.executors.cuts
			b.executors.mu.Unlock()
			<-time.After(length)
			b.executors.mu.Lock()
			defer b.executors.mu.Unlock()
			return b.executors.cuts - before
		}
		cuts(2*time.Minute, 0) // it shrinks to its minimum
		require.Equal(t, 2, b.executors.State().Size)
		require.LessOrEqual(t, cuts(time.Minute, 0), 13, "at rest")
		require.GreaterOrEqual(t, cuts(time.Minute, 1), 110, "at work")
		require.LessOrEqual(t, cuts(time.Minute, 0), 14, "at rest again")
		cfg := b.Config()
		cfg.Resting = func() bool { return true }
		b.Reload(cfg)
		cuts(time.Second, 0)
		require.Zero(t, cuts(time.Hour, 0), "the whole host rests")
		require.GreaterOrEqual(t, cuts(time.Minute, 1), 110, "at work")
		stop()
		require.NoError(t, <-done)
	})
}
