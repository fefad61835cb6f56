package pipeline

import (
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// capacity decides how many steps the host may hold leases on, and of which
// handlers. A host holds more than its plugins run at once, so that they never
// wait for a commit: twice the window, and what was settled in the last
// quarter of a second, which is what is on its way through the commits. Not
// more: what one host hoards, no other can run. And each plugin has room of its
// own, so that a slow one does not hold back the others.
type capacity struct {
	freed chan struct{} // level-triggered: room may have grown
	max   int
	now   func() time.Time

	mu       sync.Mutex
	groups   map[string]*group
	byID     map[int32]*group // by handler id
	byName   map[string]int32 // handler ids; handlers no template names have none
	reserved int              // granted to calls under way
	held     int
	closed   bool // no more room is granted
}

type group struct {
	window   int
	ids      []int32
	names    []string
	held     int
	settled  int // in the current measuring interval
	rate     float64
	measured time.Time
}

const (
	rateInterval = 100 * time.Millisecond // over which the rate of settling is measured
	rateReach    = 250 * time.Millisecond // of work is held beyond the windows
)

func newCapacity(most int, now func() time.Time) *capacity {
	return &capacity{
		freed: make(chan struct{}, 1), max: most, now: now,
		groups: map[string]*group{}, byID: map[int32]*group{}, byName: map[string]int32{},
	}
}

// serve replaces what is served. ids maps names of handlers to their ids.
func (c *capacity) serve(services []pluginhost.Service, ids map[string]int32) {
	c.mu.Lock()
	old := c.groups
	c.groups, c.byName = make(map[string]*group, len(services)), ids
	byID := make(map[int32]*group)
	for _, s := range services {
		g := &group{window: max(s.Window, 1), measured: c.now()}
		if o := old[s.Name]; o != nil {
			g.held, g.rate = o.held, o.rate
		}
		for _, h := range s.Handlers {
			if id, ok := ids[h]; ok {
				g.ids, g.names = append(g.ids, id), append(g.names, h)
				byID[id] = g
			}
		}
		c.groups[s.Name] = g
	}
	for id, o := range c.byID { // keep counting what is held of handlers served no more
		if _, still := byID[id]; !still && o.held > 0 {
			o.ids, o.names = nil, nil
			byID[id] = o
		}
	}
	c.byID = byID
	c.mu.Unlock()
	c.signal()
}

// grant is the right to take up to room leases, of the handlers named. The
// holder gives it back with taken.
type grant struct {
	room  int
	ids   []int32
	names []string
}

// reserve grants room for a call that may lease at most want steps and ends as
// many leases as given: their places are as good as free.
func (c *capacity) reserve(want, ending int) grant {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := grant{ids: []int32{}, names: []string{}}
	free := c.max - c.held - c.reserved + ending
	if c.closed || free <= 0 {
		return g
	}
	room := 0
	now := c.now()
	for _, s := range c.groups {
		if r := s.limit(now) - s.held; r+ending > 0 && len(s.ids) > 0 {
			room += max(r, 0)
			g.ids, g.names = append(g.ids, s.ids...), append(g.names, s.names...)
		}
	}
	g.room = max(min(want, free, room-c.reserved+ending), 0)
	c.reserved += g.room
	return g
}

// limit is how many leases of the group the host may hold.
func (s *group) limit(now time.Time) int {
	if dt := now.Sub(s.measured); dt >= rateInterval {
		s.rate = 0.5*s.rate + 0.5*float64(s.settled)/dt.Seconds()
		s.settled, s.measured = 0, now
	}
	return 2*s.window + int(s.rate*rateReach.Seconds())
}

// taken ends a grant: these leases came of it.
func (c *capacity) taken(g grant, handlers []int32) {
	c.mu.Lock()
	c.reserved -= g.room
	c.held += len(handlers)
	for _, id := range handlers {
		if s := c.byID[id]; s != nil {
			s.held++
		}
	}
	c.mu.Unlock()
	if len(handlers) < g.room {
		c.signal()
	}
}

// settled says that leases have ended.
func (c *capacity) settled(handlers []int32) {
	c.mu.Lock()
	c.held -= len(handlers)
	for _, id := range handlers {
		if s := c.byID[id]; s != nil {
			s.held--
			s.settled++
		}
	}
	c.mu.Unlock()
	c.signal()
}

// close ends the granting of room.
func (c *capacity) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
}

func (c *capacity) signal() {
	select {
	case c.freed <- struct{}{}:
	default:
	}
}

func (g grant) forStore(host int32) store.Grant {
	return store.Grant{Host: host, Room: g.room, Served: g.ids}
}
