package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// maxPools is how many pools an algorithm remembers; the least recently used
// one makes room.
const maxPools = 1024

// scaling is the service of kind scaling.
type scaling struct {
	pluginv1.UnimplementedScalingServer
	calls
	table map[string]*algorithm // immutable
}

// algorithm is one slot and the pools it decides for.
type algorithm struct {
	name                      string
	make                      scaler.New
	decisions, errors, micros atomic.Int64

	mu    sync.Mutex // guards the fields below
	pools map[string]*pool
}

// pool is one pool's scaler. The turn guards everything but used.
type pool struct {
	turn   turn
	scaler scaler.Scaler // nil: not created yet
	used   time.Time     // guarded by the algorithm's lock
}

func newScaling(p *Plugin, algorithms map[string]scaler.New) *scaling {
	s := &scaling{calls: newCalls(p), table: make(map[string]*algorithm, len(algorithms))}
	for name, make := range algorithms {
		s.table[name] = &algorithm{name: name, make: make, pools: map[string]*pool{}}
	}
	return s
}

func (s *scaling) slots() []*pluginv1.Slot {
	slots := make([]*pluginv1.Slot, 0, len(s.table))
	for _, name := range slices.Sorted(maps.Keys(s.table)) {
		slots = append(slots, &pluginv1.Slot{Kind: wire.KindScaling, Name: name})
	}
	return slots
}

func (s *scaling) register(r grpc.ServiceRegistrar) { pluginv1.RegisterScalingServer(r, s) }

// Decide asks the scaler of each pool.
func (s *scaling) Decide(rpc context.Context, req *pluginv1.DecideRequest) (*pluginv1.DecideResponse, error) {
	ctx, a, done, err := s.open(rpc, req.GetAlgorithm())
	if err != nil {
		return nil, err
	}
	defer done()
	answer := &pluginv1.DecideResponse{Decisions: make([]*pluginv1.Decision, len(req.GetObservations()))}
	for i, o := range req.GetObservations() {
		answer.Decisions[i] = s.decide(ctx, a, o)
	}
	return answer, nil
}

func (s *scaling) decide(ctx context.Context, a *algorithm, o *pluginv1.Observation) *pluginv1.Decision {
	started := time.Now()
	var d scaler.Decision
	err := s.ask(ctx, a, o.GetPool(), func(sc scaler.Scaler) (err error) {
		if d, err = sc.Decide(ctx, wire.DecodeObservation(o)); err != nil {
			return err
		}
		return d.Check()
	})
	a.micros.Add(time.Since(started).Microseconds())
	if err != nil {
		a.errors.Add(1)
		return &pluginv1.Decision{Error: told(err)}
	}
	a.decisions.Add(1)
	return &pluginv1.Decision{
		Target: uint32(min(d.Target, math.MaxInt32)),
		Reason: d.Reason, Confidence: d.Confidence,
	}
}

// Snapshot returns what the scaler of a pool has learned.
func (s *scaling) Snapshot(rpc context.Context, req *pluginv1.SnapshotRequest) (*pluginv1.SnapshotResponse, error) {
	ctx, a, done, err := s.open(rpc, req.GetAlgorithm())
	if err != nil {
		return nil, err
	}
	defer done()
	var snapshot []byte
	err = s.ask(ctx, a, req.GetPool(), func(sc scaler.Scaler) (err error) {
		learns, ok := sc.(scaler.Snapshotter)
		if !ok {
			return nil
		}
		if snapshot, err = learns.Snapshot(ctx); len(snapshot) > scaler.MaxSnapshotBytes {
			err = fmt.Errorf("the snapshot has %d bytes: want at most %d", len(snapshot), scaler.MaxSnapshotBytes)
		}
		return err
	})
	if err != nil {
		return &pluginv1.SnapshotResponse{Error: told(err)}, nil
	}
	return &pluginv1.SnapshotResponse{Snapshot: snapshot}, nil
}

// Restore gives the scaler of a pool what another has learned. If it refuses,
// it is replaced by a new one, so that it keeps nothing half read.
func (s *scaling) Restore(rpc context.Context, req *pluginv1.RestoreRequest) (*pluginv1.RestoreResponse, error) {
	ctx, a, done, err := s.open(rpc, req.GetAlgorithm())
	if err != nil {
		return nil, err
	}
	defer done()
	err = s.ask(ctx, a, req.GetPool(), func(sc scaler.Scaler) error {
		learns, ok := sc.(scaler.Snapshotter)
		if !ok {
			return errors.New("the algorithm does not learn and takes no snapshots")
		}
		if err := learns.Restore(ctx, req.GetSnapshot()); err != nil {
			return &spoiled{err}
		}
		return nil
	})
	if err != nil {
		return &pluginv1.RestoreResponse{Error: told(err)}, nil
	}
	return &pluginv1.RestoreResponse{}, nil
}

// open begins a call for an algorithm.
func (s *scaling) open(rpc context.Context, name string) (ctx context.Context, a *algorithm, done func(), err error) {
	a, ok := s.table[name]
	if !ok {
		return nil, nil, nil, status.Errorf(codes.NotFound, "the plugin does not serve an algorithm %.140q", name)
	}
	ctx, done, err = s.begin(rpc)
	return ctx, a, done, err
}

// spoiled means that the scaler must not be used any more.
type spoiled struct{ error }

func (e *spoiled) Unwrap() error { return e.error }

// ask waits for the pool's turn and calls f with its scaler. A scaler that
// panics is replaced by a new one for the next call.
func (s *scaling) ask(ctx context.Context, a *algorithm, name string, f func(scaler.Scaler) error) error {
	p := a.pool(name)
	if err := p.turn.take(ctx); err != nil {
		return err
	}
	defer p.turn.give()
	err := s.plugin.shielded("algorithm", a.name, func() error {
		if p.scaler == nil {
			p.scaler = a.make()
		}
		if p.scaler == nil {
			return errors.New("the algorithm made no scaler for the pool")
		}
		return f(p.scaler)
	})
	_, panicked := errors.AsType[*panicError](err)
	if _, spoilt := errors.AsType[*spoiled](err); panicked || spoilt {
		p.scaler = nil
	}
	return err
}

// pool returns the named pool, and creates it if necessary.
func (a *algorithm) pool(name string) *pool {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, ok := a.pools[name]
	if !ok {
		if len(a.pools) >= maxPools {
			a.forget()
		}
		p = &pool{turn: newTurn()}
		a.pools[name] = p
	}
	p.used = time.Now()
	return p
}

// forget makes room for a pool.
func (a *algorithm) forget() {
	oldest := ""
	for name, p := range a.pools {
		if oldest == "" || p.used.Before(a.pools[oldest].used) {
			oldest = name
		}
	}
	delete(a.pools, oldest)
}

func (s *scaling) collect(w io.Writer) {
	names := slices.Sorted(maps.Keys(s.table))
	family(w, "plugin_decisions_total", "counter", "Decisions asked for, by outcome.")
	for _, name := range names {
		a := s.table[name]
		fmt.Fprintf(w, "plugin_decisions_total{algorithm=%q,outcome=\"success\"} %d\n", name, a.decisions.Load())
		fmt.Fprintf(w, "plugin_decisions_total{algorithm=%q,outcome=\"error\"} %d\n", name, a.errors.Load())
	}
	family(w, "plugin_decision_seconds_total", "counter", "Time spent in the algorithm.")
	for _, name := range names {
		fmt.Fprintf(w, "plugin_decision_seconds_total{algorithm=%q} %g\n", name, float64(s.table[name].micros.Load())/1e6)
	}
}
