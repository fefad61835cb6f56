package pipeline

import (
	"maps"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// capacity decides how many leases the host may hold, and for which handlers. A host
// holds more steps than its plugins run at once, so that they never wait for a commit:
// twice the window, plus what was settled in the last quarter of a second, which is what
// passes through the commits in that time. It holds no more than that, because no other
// host can run what this one hoards. Each plugin has its own room, so that a slow one
// does not hold back the others. The same applies to the steps of each namespace, whose
// window is the size of its pool.
type capacity struct {
	freed chan struct{} // level-triggered: room may have grown
	now   func() time.Time

	mu       sync.Mutex
	max      int
	groups   map[string]*group // by service name; a service that is gone stays while any of its leases is held
	byID     map[int32]*group  // by handler id
	spaces   map[string]*group // namespaces; their handlers are not known
	reserved int               // granted to calls in progress
	held     int
	closed   bool // no more room is granted
	asleep   bool // likewise, until wake
	calls    int  // in progress with a grant, even one without room
	granted  uint64
}

// group is a service of the plugins, or a namespace: how much of it runs at once, and how
// much the host holds.
type group struct {
	window   int
	ids      []int32
	names    []string
	held     int
	settled  int // in the current measuring interval
	rate     float64
	measured time.Time
	reserved int  // for a namespace: granted to calls in progress
	paused   bool // for a namespace: no step is started
}

const (
	rateInterval = 100 * time.Millisecond // interval over which the rate of settling is measured
	rateReach    = 250 * time.Millisecond // how much work is held beyond the windows
)

func newCapacity(most int, now func() time.Time) *capacity {
	return &capacity{
		freed: make(chan struct{}, 1), max: most, now: now,
		groups: map[string]*group{}, byID: map[int32]*group{},
		spaces: map[string]*group{},
	}
}

// serve replaces the set of services. ids maps handler names to their ids; handlers that
// no template names have none. A held lease counts for the service it was leased for
// until it ends, whatever serves its handler by then.
func (c *capacity) serve(services []pluginhost.Service, ids map[string]int32) {
	c.mu.Lock()
	c.byID = make(map[int32]*group)
	for _, g := range c.groups {
		g.ids, g.names = nil, nil
	}
	for _, s := range services {
		g := c.groups[s.Name]
		if g == nil {
			g = &group{measured: c.now()}
			c.groups[s.Name] = g
		}
		g.window = max(s.Window, 1)
		for _, h := range s.Handlers {
			if id, ok := ids[h]; ok {
				g.ids, g.names = append(g.ids, id), append(g.names, h)
				c.byID[id] = g
			}
		}
	}
	maps.DeleteFunc(c.groups, func(_ string, g *group) bool { return len(g.ids) == 0 && g.held == 0 })
	c.mu.Unlock()
	c.signal()
}

// setSpace sets how many steps of a namespace run at once, and whether it is paused.
func (c *capacity) setSpace(namespace string, window int, paused bool) {
	c.mu.Lock()
	s := c.spaces[namespace]
	if s == nil {
		s = &group{measured: c.now()}
		c.spaces[namespace] = s
	}
	s.window, s.paused = window, paused
	c.mu.Unlock()
	c.signal()
}

// grant is the right to take up to room leases of the named handlers. The holder returns
// it with taken.
type grant struct {
	room  int
	sleep bool // nothing is granted because the host is asleep
	ids   []int32
	names []string
	parts []part // by namespace
}

// part is what a grant has reserved for a namespace.
type part struct {
	space *group
	room  int
}

// want is how many leases of one namespace a call may take, and how many it ends.
type want struct {
	namespace    string
	take, ending int
}

// reserve grants room for a call that leases at most the given numbers of steps in some
// namespaces and ends the given numbers of leases, whose places count as free. A call for
// several namespaces gets the sum of their room and may spend it differently than
// planned; how many steps run at once is bounded elsewhere.
func (c *capacity) reserve(wants ...want) grant {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	c.granted++
	g := grant{ids: []int32{}, names: []string{}, sleep: c.asleep}
	if c.asleep {
		return g
	}
	take, ending := 0, 0
	now := c.now()
	for _, w := range wants {
		ending += w.ending
		s := c.spaces[w.namespace]
		if s == nil {
			take += w.take
			continue
		}
		r := max(min(w.take, s.limit(now)-s.held-s.reserved+w.ending), 0)
		if s.paused {
			r = 0
		}
		take += r
		g.parts = append(g.parts, part{s, r})
	}
	free := c.max - c.held - c.reserved + ending
	if c.closed || free <= 0 {
		return grant{ids: g.ids, names: g.names}
	}
	room := 0
	for _, s := range c.groups {
		if r := s.limit(now) - s.held; r+ending > 0 && len(s.ids) > 0 {
			room += max(r, 0)
			g.ids, g.names = append(g.ids, s.ids...), append(g.names, s.names...)
		}
	}
	g.room = max(min(take, free, room-c.reserved+ending), 0)
	c.reserved += g.room
	for i := range g.parts {
		p := &g.parts[i]
		p.room = min(p.room, g.room)
		p.space.reserved += p.room
	}
	return g
}

// limit returns how many leases of the group the host may hold.
func (s *group) limit(now time.Time) int {
	if dt := now.Sub(s.measured); dt >= rateInterval {
		s.rate = 0.5*s.rate + 0.5*float64(s.settled)/dt.Seconds()
		s.settled, s.measured = 0, now
	}
	return 2*s.window + int(s.rate*rateReach.Seconds())
}

// taken ends a grant, which has yielded the given attempts.
func (c *capacity) taken(g grant, attempts []*attempt) {
	c.mu.Lock()
	c.calls--
	c.reserved -= g.room
	for _, p := range g.parts {
		p.space.reserved -= p.room
	}
	c.held += len(attempts)
	for _, a := range attempts {
		if a.service = c.byID[a.handlerID()]; a.service != nil {
			a.service.held++
		}
		if s := c.spaces[a.plan.Namespace]; s != nil {
			s.held++
		}
	}
	c.mu.Unlock()
	if len(attempts) < g.room {
		c.signal()
	}
}

// settled reports that the leases of attempts have ended.
func (c *capacity) settled(attempts []*attempt) {
	c.mu.Lock()
	c.held -= len(attempts)
	for _, a := range attempts {
		for _, s := range [...]*group{a.service, c.spaces[a.plan.Namespace]} {
			if s != nil {
				s.held--
				s.settled++
			}
		}
	}
	c.mu.Unlock()
	c.signal()
}

// resize changes how many leases the host may hold. Leases held beyond that end as usual.
func (c *capacity) resize(most int) {
	c.mu.Lock()
	c.max = most
	c.mu.Unlock()
	c.signal()
}

// sleep stops granting room until wake, unless leases are held or a call that may bring
// some is in progress. It reports whether the host is asleep.
func (c *capacity) sleep() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asleep && c.held == 0 && c.calls == 0 && !c.closed {
		c.asleep = true
	}
	return c.asleep
}

// wake allows room to be granted again.
func (c *capacity) wake() {
	c.mu.Lock()
	c.asleep = false
	c.mu.Unlock()
	c.signal()
}

func (c *capacity) sleeps() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asleep
}

// asked returns a number that changes whenever room is requested. none reports that no
// leases are held and no call with a grant is in progress.
func (c *capacity) asked() (n uint64, none bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.granted, c.held == 0 && c.calls == 0
}

// close stops granting room.
func (c *capacity) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
}

func (c *capacity) signal() { signal(c.freed) }

func (g grant) forStore(host int32) store.Grant {
	return store.Grant{Host: host, Room: g.room, Served: g.ids}
}
