package coordinator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pool"
	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// MaxExecutors is the largest size of any pool.
const MaxExecutors = 100_000

// Change holds changes of a pool's settings; nil: unchanged.
type Change struct {
	Min, Max                 *int
	Batch                    *int
	PollMin, PollMax         *time.Duration
	TurnTimeout, StopTimeout *time.Duration
	Algorithm, Shadow        *string
}

// Status is the visible state of a pool.
type Status struct {
	Name, Kind, Namespace string
	Settings
	pool.State
	Target    int
	Useful    int // more executors than this are of no use now; 0: unknown
	ChangedAt time.Time
	Pause     *Pause
	Sample    *scaler.Sample    // the last one; nil: nothing was measured
	Last      *scaling.Decision // nil: none yet
	Problem   string            // with the algorithm; empty: none
	Overrides bool              // the settings differ from those of the configuration
	// StrainedSince is since when the pool has been at its maximum while its backlog has
	// grown to Backlog; zero: it is not strained.
	StrainedSince time.Time
	Backlog       int64
}

// Pools returns the status of all pools, ordered by name.
func (c *Coordinator) Pools() []Status {
	c.adopt()
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Status, 0, len(c.pools))
	for _, m := range c.pools {
		all = append(all, m.status())
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Pool returns the status of one pool.
func (c *Coordinator) Pool(name string) (Status, error) {
	m, err := c.find(name)
	if err != nil {
		return Status{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return m.status(), nil
}

// status returns the status. The caller holds the lock.
func (m *managed) status() Status {
	s := Status{
		Name: m.name, Kind: m.Kind, Namespace: m.Namespace, Settings: m.settings, State: m.State(), Target: m.target,
		Useful: m.Useful, ChangedAt: m.changedAt, Pause: m.paused, Last: m.last, Problem: m.problem, Overrides: m.settings != m.base,
	}
	if last, ok := m.samples.last(); ok {
		s.Sample = &last
	}
	if m.strain.depth > m.strain.low {
		s.StrainedSince, s.Backlog = m.strain.since, m.strain.depth
	}
	return s
}

func (c *Coordinator) find(name string) (*managed, error) {
	c.adopt()
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.pools[name]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("pool %q: %w; available: %s", name, ErrNoPool, strings.Join(slices.Sorted(maps.Keys(c.pools)), ", "))
}

// History returns the last decisions about a pool, newest first: all, or those that
// changed it.
func (c *Coordinator) History(name string, most int, changes bool) ([]scaling.Decision, error) {
	m, err := c.find(name)
	if err != nil {
		return nil, err
	}
	if changes {
		return m.journal.Changes(most), nil
	}
	return m.journal.Latest(most), nil
}

// Samples returns at most most samples of a pool taken after a time, oldest first.
func (c *Coordinator) Samples(name string, after time.Time, most int) ([]scaler.Sample, error) {
	m, err := c.find(name)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return m.samples.after(after, most), nil
}

// Set changes settings of a pool at once, and returns the warnings. It refuses
// contradictory settings with a [*RefusedError], and so, with enforcement, settings that
// exceed the resources: then nothing is changed.
func (c *Coordinator) Set(ctx context.Context, name string, change Change) (Status, []string, error) {
	m, err := c.find(name)
	if err != nil {
		return Status{}, nil, err
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	c.mu.Lock()
	old, configured := m.settings, m.base.Pace
	c.mu.Unlock()
	next := change.apply(old)
	if err := c.check(configured, next); err != nil {
		return Status{}, nil, err
	}
	findings := c.checkWith(ctx, name, next)
	var warnings []string
	for _, f := range findings {
		if f.Fatal && c.cfg.Load().Enforce && next.Max > old.Max {
			return Status{}, nil, &RefusedError{Problems: messages(findings)}
		}
		warnings = append(warnings, f.Message)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m.settings, m.problem = next, ""
	c.fit(m)
	c.log.Info("pool changed", "pool", name, "min", next.Min, "max", next.Max, "pace", next.Pace, "algorithm", next.Algorithm, "shadow", next.Shadow)
	return m.status(), warnings, nil
}

func (ch *Change) apply(s Settings) Settings {
	set(&s.Min, ch.Min)
	set(&s.Max, ch.Max)
	set(&s.Pace.Batch, ch.Batch)
	set(&s.Pace.PollMin, ch.PollMin)
	set(&s.Pace.PollMax, ch.PollMax)
	set(&s.Pace.TurnTimeout, ch.TurnTimeout)
	set(&s.Pace.StopTimeout, ch.StopTimeout)
	set(&s.Algorithm, ch.Algorithm)
	set(&s.Shadow, ch.Shadow)
	return s
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

// check refuses settings that make no sense. base is the configured pace: the pool lacks
// whatever base lacks.
func (c *Coordinator) check(base pool.Pace, s Settings) error {
	var problems []string
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if s.Min < 1 {
		wrong("min is %d: want 1 or more; to stop a pool, pause it", s.Min)
	}
	if s.Max < s.Min {
		wrong("max is %d: want min, %d, or more", s.Max, s.Min)
	}
	if s.Max > MaxExecutors {
		wrong("max is %d: want at most %d", s.Max, MaxExecutors)
	}
	for what, spec := range map[string]string{"algorithm": s.Algorithm, "shadow": s.Shadow} {
		if spec == "" {
			if what == "algorithm" {
				wrong("a pool needs an algorithm")
			}
			continue
		}
		if _, err := c.world.Algorithm(spec); err != nil {
			wrong("%s: %v", what, err)
		}
	}
	c.checkPace(base, s.Pace, wrong)
	if problems != nil {
		slices.Sort(problems)
		return &RefusedError{Problems: problems}
	}
	return nil
}

// The limits of a pace, as in the configuration.
const (
	maxBatch = 10_000
	minPoll  = time.Millisecond
	minTurn  = time.Second
	maxTurn  = time.Hour
	minStop  = 100 * time.Millisecond
	maxStop  = time.Minute
)

func (c *Coordinator) checkPace(base, p pool.Pace, wrong func(format string, args ...any)) {
	if base == (pool.Pace{}) {
		if p != base {
			wrong("the executors of this pool run one step at a time, as long as its template allows: they have no batch, polls or timeouts")
		}
		return
	}
	if p.Batch < 1 || p.Batch > maxBatch {
		wrong("batch is %d: want 1 to %d", p.Batch, maxBatch)
	}
	within := func(what string, d, least, most time.Duration) {
		if d < least || d > most {
			wrong("%s is %s: want %s to %s", what, d, least, most)
		}
	}
	within("turn_timeout", p.TurnTimeout, minTurn, maxTurn)
	within("stop_timeout", p.StopTimeout, minStop, maxStop)
	if base.PollMax == 0 {
		if p.PollMin != 0 || p.PollMax != 0 {
			wrong("the executors of this pool are woken by work: they do not poll")
		}
		return
	}
	within("poll_max", p.PollMax, minPoll, c.cfg.Load().LongestPoll)
	within("poll_min", p.PollMin, minPoll, p.PollMax)
}

// Pause makes a pool's executors stop beginning work, or continue. Pausing again updates
// who and why.
func (c *Coordinator) Pause(name string, pause bool, by, reason string) (Status, error) {
	m, err := c.find(name)
	if err != nil {
		return Status{}, err
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	c.mu.Lock()
	if pause {
		since := c.now()
		if m.paused != nil {
			since = m.paused.Since
		}
		m.paused = &Pause{Since: since, By: by, Reason: reason}
	} else {
		m.paused = nil
	}
	c.mu.Unlock()
	m.Executors.Pause(pause) // the pool gives work back: not under the lock
	c.log.Info("pool paused or resumed", "pool", name, "paused", pause, "by", by, "reason", reason)
	c.mu.Lock()
	defer c.mu.Unlock()
	return m.status(), nil
}

// algorithmName returns the name of an algorithm without its options.
func algorithmName(spec string) string {
	name, _, _ := strings.Cut(spec, "=")
	return strings.TrimSpace(name)
}

// samples keeps about an hour of measurements, for whoever records them.
type samples struct{ kept []scaler.Sample }

const keptSamples = 7200

func (s *samples) add(one scaler.Sample) {
	if len(s.kept) >= 2*keptSamples {
		n := copy(s.kept, s.kept[len(s.kept)-keptSamples:])
		s.kept = s.kept[:n]
	}
	s.kept = append(s.kept, one)
}

func (s *samples) last() (scaler.Sample, bool) {
	if len(s.kept) == 0 {
		return scaler.Sample{}, false
	}
	return s.kept[len(s.kept)-1], true
}

func (s *samples) after(t time.Time, most int) []scaler.Sample {
	i, _ := slices.BinarySearchFunc(s.kept, t, func(one scaler.Sample, t time.Time) int { return one.At.Compare(t) })
	for i < len(s.kept) && !s.kept[i].At.After(t) {
		i++
	}
	return slices.Clone(s.kept[i:min(len(s.kept), i+most)])
}
