package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Config holds the coordinator's settings.
type Config struct {
	Enabled  bool          // false: pools keep the size they have, within their bounds
	Interval time.Duration // between two decisions about a pool
	Timeout  time.Duration // for an algorithm to answer
	Policy   scaling.Policy

	// Settings returns the configured settings of a pool.
	Settings func(kind, namespace string) Settings
	// Enforce refuses settings that exceed the resources; otherwise there is only a
	// warning.
	Enforce bool
	// MemoryShare is the fraction of the free memory that additional executors may use, 0
	// to 1.
	MemoryShare float64
	// LongestPoll is the longest rest of a pool between two looks.
	LongestPoll time.Duration
	// Resting reports whether the host leaves the database alone; nil: it never does.
	Resting func() bool
}

// Settings are the settings of one pool.
type Settings struct {
	Min, Max  int
	Algorithm string // its name, with options as JSON behind an equals sign
	Shadow    string // like Algorithm; empty: none
	Pace      pool.Pace
}

// Pool is a pool as its owner shows it.
type Pool struct {
	Kind, Namespace string   // the namespace is empty except for step execution
	Queues          []string // where work waits that no host has taken
	Useful          int      // more executors than this are of no use now; 0: unknown
	Connections     int      // database connections that an executor needs
	Memory          int64    // approximate bytes that an executor needs
	Executors
}

// Name returns the pool's name, unique in its host.
func (p *Pool) Name() string {
	if p.Namespace == "" {
		return p.Kind
	}
	return p.Kind + "." + p.Namespace
}

// Executors is what a pool is made of.
type Executors interface {
	Resize(n int)
	Tune(pace pool.Pace)
	Pause(pause bool)
	State() pool.State
	Cut(elsewhere int64, oldest time.Duration) (scaler.Sample, bool)
}

// Backlog is this host's share of the work that waits in a queue and that no host has
// taken.
type Backlog struct {
	Waiting int64
	Oldest  time.Duration
}

// World is what the coordinator needs from the rest of the host.
type World interface {
	// Pools returns the pools there are now. A pool never disappears.
	Pools() []Pool
	// Backlogs returns what waits in queues. If a queue is missing from the answer, its
	// backlog is unknown.
	Backlogs(ctx context.Context, queues []string) (map[string]Backlog, error)
	// Algorithm returns the scaler of a pool. The error says what is wrong with the name
	// or the options. A [Named] scaler tells who answered.
	Algorithm(spec string) (scaler.Scaler, error)
	// Facts returns the available resources.
	Facts(ctx context.Context) (Facts, error)
	// State returns the host's operational state.
	State() opstate.State
}

// Named tells who gave the last answer: a plugin's process, or the host itself.
type Named interface{ By() string }

// ErrNoPool is returned if no pool has the given name.
var ErrNoPool = errors.New("no such pool")

// RefusedError says why a change is not made.
type RefusedError struct{ Problems []string }

// Error returns the first problem and how many more there are.
func (e *RefusedError) Error() string {
	if n := len(e.Problems); n > 1 {
		return fmt.Sprintf("%s (and %d more)", e.Problems[0], n-1)
	}
	return e.Problems[0]
}

// Coordinator sizes the pools of one host. It is safe for concurrent use.
type Coordinator struct {
	cfg     atomic.Pointer[Config]
	world   World
	log     hclog.Logger
	metrics *metrics
	now     func() time.Time

	mu    sync.Mutex // guards the fields below and the fields of managed that say so
	pools map[string]*managed
	facts Facts
	known bool // facts have been read

	ticked   time.Time      // the last tick of Run
	changing sync.Mutex     // one change of settings at a time, because each is checked against the others
	asking   sync.WaitGroup // the decisions in progress
}

// managed is a pool and what is known about it.
type managed struct {
	Pool // Useful and Memory are guarded by mu
	name string

	// Guarded by Coordinator.mu.
	base      Settings // from the configuration
	settings  Settings // what is in force
	target    int
	paused    *Pause
	changedAt time.Time
	last      *scaling.Decision
	problem   string // with the algorithm; empty: none

	journal *scaling.Journal

	// Used only by the goroutine that ticks.
	window  *scaling.Window
	depth   int64 // of the queues, at the last cut
	measure bool  // depth is known

	samples samples // guarded by Coordinator.mu
	strain  strain  // likewise

	// Used only by the goroutine that holds the token of busy.
	busy   chan struct{}
	lead   governed
	shadow governed
}

// governed is an algorithm with its governor.
type governed struct {
	spec     string
	policy   scaling.Policy
	scaler   scaler.Scaler
	governor *scaling.Governor
}

// Pause says who paused a pool, when and why.
type Pause struct {
	Since      time.Time
	By, Reason string
}

const (
	windowSpan  = 2 * time.Minute // of samples shown to algorithms
	historySize = 500             // decisions kept per pool, and as many that changed something
	restPace    = 5 * time.Second // between two ticks while there is nothing to decide
)

// New returns a coordinator. Its pools keep their initial sizes until it runs.
func New(cfg Config, world World, reg prometheus.Registerer, log hclog.Logger) *Coordinator {
	c := &Coordinator{world: world, log: log, metrics: newMetrics(reg), now: time.Now, pools: map[string]*managed{}}
	c.cfg.Store(&cfg)
	return c
}

// Run decides at intervals until ctx ends: rarely while there is nothing to decide, and
// not at all while the host rests as well. It is meant for a lifecycle.Runner.
func (c *Coordinator) Run(ctx context.Context) error {
	defer c.asking.Wait()
	for {
		if now := c.now(); now.Sub(c.ticked) >= restPace && !c.resting() || !c.atRest() {
			c.ticked = now
			c.Tick(ctx)
		}
		select {
		case <-time.After(c.cfg.Load().Interval):
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Coordinator) resting() bool {
	resting := c.cfg.Load().Resting
	return resting != nil && resting()
}

// Reload puts another configuration in force. Pools whose settings it changes get the new
// ones; otherwise run-time changes are kept.
func (c *Coordinator) Reload(cfg Config) {
	c.changing.Lock()
	defer c.changing.Unlock()
	c.cfg.Store(&cfg)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.pools {
		if base := cfg.Settings(m.Kind, m.Namespace); base != m.base {
			m.base, m.settings = base, base
			c.fit(m)
		}
	}
}

// Config returns the configuration in force.
func (c *Coordinator) Config() Config { return *c.cfg.Load() }

// atRest reports whether a tick would have no effect: no pool is working or has waiting
// work, and none is larger than its minimum. A host at rest finds what waits in the
// database by its claims, not by constantly asking how much there is.
func (c *Coordinator) atRest() bool {
	pools, enabled := c.world.Pools(), c.cfg.Load().Enabled
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range pools {
		m := c.pools[p.Name()]
		if m == nil {
			return false
		}
		least, _ := m.bounds()
		// The executors of the other kinds look for work, which by itself does not count
		// as work.
		at := p.State()
		if enabled && m.paused == nil && m.target > least || at.Waiting > 0 || at.Running > 0 && p.Namespace != "" {
			return false
		}
	}
	return true
}

// Tick measures every pool and begins a decision about each. It does not wait for
// algorithms.
func (c *Coordinator) Tick(ctx context.Context) {
	cfg := c.cfg.Load()
	pools := c.adopt()
	limited, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	c.readFacts(limited)
	backlogs := c.readBacklogs(limited, pools)
	for _, m := range pools {
		c.measure(m, backlogs)
	}
	if !cfg.Enabled || !c.world.State().Scales() {
		return
	}
	for _, m := range pools {
		select {
		case m.busy <- struct{}{}:
			o := c.observe(m)
			c.asking.Go(func() {
				defer func() { <-m.busy }()
				c.decide(ctx, m, o)
			})
		default: // the last question has not been answered yet
			c.metrics.late.Inc()
		}
	}
}

// adopt adds new pools, updates the others, and returns all.
func (c *Coordinator) adopt() []*managed {
	cfg := c.cfg.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	pools := c.world.Pools()
	all := make([]*managed, 0, len(pools))
	for _, p := range pools {
		name := p.Name()
		m := c.pools[name]
		if m == nil {
			base := cfg.Settings(p.Kind, p.Namespace)
			m = &managed{
				Pool: p, name: name, base: base, settings: base, target: p.State().Size,
				journal: scaling.NewJournal(historySize), window: scaling.NewWindow(windowSpan), busy: make(chan struct{}, 1),
			}
			c.pools[name] = m
			c.fit(m)
		}
		m.Useful, m.Memory = p.Useful, p.Memory
		all = append(all, m)
	}
	return all
}

// fit brings a pool's target within its bounds, and sets its pace. The caller holds the
// lock.
func (c *Coordinator) fit(m *managed) {
	if to := min(max(m.target, m.settings.Min), m.settings.Max); to != m.target {
		m.target, m.changedAt = to, c.now()
	}
	m.Tune(m.settings.Pace)
	m.Resize(m.target)
}

func (c *Coordinator) readFacts(ctx context.Context) {
	facts, err := c.world.Facts(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.log.Debug("resources could not be read", "error", err)
		c.known = false
		return
	}
	c.facts, c.known = facts, true
}

func (c *Coordinator) readBacklogs(ctx context.Context, pools []*managed) map[string]Backlog {
	var queues []string
	for _, m := range pools {
		queues = append(queues, m.Queues...)
	}
	slices.Sort(queues)
	backlogs, err := c.world.Backlogs(ctx, slices.Compact(queues))
	if err != nil {
		c.log.Debug("the backlog could not be read: pools are not measured now", "error", err)
	}
	return backlogs
}

// measure cuts a sample of a pool. If it is unknown what waits, there is no sample:
// missing data is never taken for zero.
func (c *Coordinator) measure(m *managed, backlogs map[string]Backlog) {
	var all Backlog
	for _, q := range m.Queues {
		b, ok := backlogs[q]
		if !ok {
			m.measure = false
			return
		}
		all.Waiting += b.Waiting
		all.Oldest = max(all.Oldest, b.Oldest)
	}
	s, ok := m.Cut(all.Waiting, all.Oldest)
	if !ok {
		return
	}
	if m.measure { // what came into the queue has arrived too; what was taken from it had arrived before
		s.Arrivals = max(s.Arrivals+all.Waiting-m.depth, 0)
	}
	m.depth, m.measure = all.Waiting, true
	c.mu.Lock()
	defer c.mu.Unlock()
	_, most := m.bounds()
	m.strain.note(s, m.target >= most && m.paused == nil)
	if m.window.Add(s) {
		m.samples.add(s)
		c.metrics.sample(m, s)
	}
}

// strain is how long a pool has been at its maximum and working while its backlog has
// grown. If its executors are idle, more of them would not help: what waits then is work
// for someone else, such as steps that outside workers run in the same namespace.
type strain struct {
	since      time.Time // zero: it is not
	low, depth int64     // what waited then, and what waits now
}

// strainedBusy is the fraction of busy time from which a pool counts as short of
// executors.
const strainedBusy = 0.5

// note adds a sample. The backlog may go up and down, but once it is smaller than when
// the strain began the pool keeps up.
func (s *strain) note(one scaler.Sample, atMost bool) {
	switch {
	case !atMost || one.QueueDepth == 0 || one.Utilization < strainedBusy:
		*s = strain{}
		return
	case s.since.IsZero() || one.QueueDepth < s.low:
		s.since, s.low = one.At, one.QueueDepth
	}
	s.depth = one.QueueDepth
}

// observe returns what an algorithm is shown of a pool.
func (c *Coordinator) observe(m *managed) scaler.Observation {
	c.mu.Lock()
	defer c.mu.Unlock()
	least, most := m.bounds()
	return scaler.Observation{
		Pool: m.name, Kind: m.Kind, Namespace: m.Namespace, Now: c.now(), State: string(c.world.State()),
		Current: m.State().Current(), Target: m.target, Min: least, Max: most,
		BudgetLeft: c.budget(m), ChangedAt: m.changedAt, Samples: slices.Clone(m.window.Samples()),
	}
}

// bounds returns the bounds in force, limited to what is useful. The caller holds the
// lock.
func (m *managed) bounds() (least, most int) {
	least, most = m.settings.Min, m.settings.Max
	if m.Useful > 0 {
		most = max(min(most, m.Useful), least)
	}
	return least, most
}

// decide asks a pool's algorithm and applies the resulting decision to the pool.
func (c *Coordinator) decide(ctx context.Context, m *managed, o scaler.Observation) {
	cfg := c.cfg.Load()
	c.mu.Lock()
	settings, paused := m.settings, m.paused != nil
	c.mu.Unlock()
	if paused {
		return
	}
	problem := ""
	if err := m.lead.prepare(c.world, settings.Algorithm, cfg.Policy); err != nil {
		problem = err.Error()
	}
	began := c.now()
	d := m.lead.decide(ctx, cfg.Timeout, o, problem)
	c.metrics.seconds.Observe(c.now().Sub(began).Seconds())
	if settings.Shadow != "" {
		d.Shadow = m.shadowed(ctx, c.world, settings.Shadow, cfg, o)
	}
	if ctx.Err() != nil {
		return // the host is stopping: that says nothing about the algorithm
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	least, most := m.bounds()
	if d.To < least || d.To > most { // the bounds have changed meanwhile
		d.To = min(max(d.To, least), most)
	}
	m.journal.Add(d)
	m.last, m.problem = &d, problem
	c.metrics.decided(m, d)
	if d.To == m.target || m.paused != nil {
		return
	}
	c.log.Info("pool resized", "pool", m.name, "from", m.target, "to", d.To, "algorithm", d.Algorithm, "by", d.By, "reason", d.Reason)
	m.target, m.changedAt = d.To, d.At
	m.Resize(d.To)
}

// prepare creates the governor of an algorithm, if it differs from the previous one. A
// new governor remembers nothing, because a new policy changes the meaning of its memory.
func (g *governed) prepare(w World, spec string, p scaling.Policy) error {
	if g.governor != nil && g.spec == spec && g.policy == p {
		return nil
	}
	if g.scaler == nil || g.spec != spec {
		s, err := w.Algorithm(spec)
		if err != nil {
			g.governor, g.scaler = nil, nil
			return err
		}
		g.scaler = s
	}
	governor, err := scaling.NewGovernor(algorithmName(spec), g.scaler, p)
	if err != nil {
		g.governor = nil
		return err
	}
	g.spec, g.policy, g.governor = spec, p, governor
	return nil
}

// decide always reaches a decision.
func (g *governed) decide(ctx context.Context, limit time.Duration, o scaler.Observation, problem string) scaling.Decision {
	if g.governor == nil {
		return scaling.Decision{
			At: o.Now, Pool: o.Pool, Current: o.Current, Min: o.Min, Max: o.Max, BudgetLeft: o.BudgetLeft,
			Samples: len(o.Samples), From: o.Target, To: min(max(o.Target, o.Min), o.Max), Reason: "held: " + problem,
		}
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	d := g.governor.Decide(limited, o)
	if n, ok := g.scaler.(Named); ok {
		d.By = n.By()
	}
	return d
}

func (m *managed) shadowed(ctx context.Context, w World, spec string, cfg *Config, o scaler.Observation) *scaling.Shadow {
	if err := m.shadow.prepare(w, spec, cfg.Policy); err != nil {
		return &scaling.Shadow{Algorithm: algorithmName(spec), To: o.Target, Reason: "held: " + err.Error()}
	}
	d := m.shadow.decide(ctx, cfg.Timeout, o, "")
	return &scaling.Shadow{Algorithm: d.Algorithm, By: d.By, Advice: d.Advice, To: d.To, Reason: d.Reason}
}
