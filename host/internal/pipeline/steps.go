package pipeline

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// stepPool is the pool of executors that run the steps of one namespace. Its size is how
// many of them run at once. The host holds leases on a few more, see capacity, so that an
// executor never waits for a commit.
type stepPool struct {
	namespace string
	slots     *pool.Slots
	capacity  *capacity
	memory    usage // of its steps

	mu     sync.Mutex // held while size or pause changes, so that both parts agree
	size   int
	paused bool
}

// Resize changes how many steps run at once.
func (p *stepPool) Resize(n int) { p.set(func() { p.size = n }) }

// Pause stops starting steps of the namespace on this host, and gives back those that it
// holds but has not begun; or lets steps start again.
func (p *stepPool) Pause(pause bool) { p.set(func() { p.paused = pause }) }

// Tune does nothing: executors run one step at a time, for as long as the step's template
// allows.
func (p *stepPool) Tune(pool.Pace) {}

func (p *stepPool) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	size, paused := p.size, p.paused
	change()
	if size != p.size {
		p.slots.Resize(p.size)
	}
	p.capacity.setSpace(p.namespace, p.size, p.paused)
	if paused != p.paused {
		p.slots.Pause(p.paused)
	}
}

// State returns what the pool is doing.
func (p *stepPool) State() pool.State { return p.slots.State() }

// Cut returns what happened since the last cut.
func (p *stepPool) Cut(elsewhere int64, oldest time.Duration) (scaler.Sample, bool) {
	return p.slots.Cut(elsewhere, oldest)
}

// stepPools holds a pool for each namespace that this host has seen.
type stepPools struct {
	capacity *capacity
	initial  func(namespace string) int

	mu    sync.RWMutex
	pools map[string]*stepPool
}

func newStepPools(c *capacity, initial func(namespace string) int) *stepPools {
	return &stepPools{capacity: c, initial: initial, pools: map[string]*stepPool{}}
}

// of returns the pool of a namespace, creating it at the first call.
func (s *stepPools) of(namespace string) *stepPool {
	s.mu.RLock()
	p := s.pools[namespace]
	s.mu.RUnlock()
	if p != nil {
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pools[namespace]; p != nil {
		return p
	}
	n := s.initial(namespace)
	p = &stepPool{namespace: namespace, slots: pool.NewSlots(n, time.Now), capacity: s.capacity, size: n}
	s.capacity.setSpace(namespace, n, false)
	s.pools[namespace] = p
	return p
}

func (s *stepPools) all() []*stepPool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*stepPool, 0, len(s.pools))
	for _, p := range s.pools {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *stepPool) int { return cmp.Compare(a.namespace, b.namespace) })
	return all
}

// Executors is a pool as its owner shows it.
type Executors interface {
	Resize(n int)
	Tune(pace pool.Pace)
	Pause(pause bool)
	State() pool.State
	Cut(elsewhere int64, oldest time.Duration) (scaler.Sample, bool)
}

// Pool is one of the engine's pools.
type Pool struct {
	Kind      PoolKind
	Namespace string   // of step execution; else empty
	Queues    []string // where work waits that no host has taken; none: all of it waits in this host
	Executors
}

// PoolKind says what the executors of a pool do.
type PoolKind string

// Pools returns the existing pools. Those of namespaces appear when the host first hears
// of them.
func (e *Engine) Pools() []Pool {
	var all []Pool
	for _, p := range e.hands {
		all = append(all, Pool{Kind: p.kind, Queues: p.queues, Executors: p.Hands})
	}
	for _, p := range e.steps.all() {
		all = append(all, Pool{Kind: StepExecution, Namespace: p.namespace, Queues: []string{pgmq.QueueOf(p.namespace)}, Executors: p})
	}
	return all
}
