package breaker

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Class is a class of operations on a queue.
type Class string

// The classes of operations.
const (
	Claim  Class = "claim"  // take steps to run
	Read   Class = "read"   // read messages
	Settle Class = "settle" // remove or set aside what was processed
)

// Classes lists all classes.
var Classes = []Class{Claim, Read, Settle}

// ID identifies a breaker: of the database, if it is zero, or of a class of operations on
// a queue.
type ID struct {
	Queue string
	Class Class
}

// Database is the breaker of the database as a whole.
var Database = ID{}

// The kinds of dependencies, which are metric labels.
const (
	kindDatabase = "database"
	kindQueue    = "queue"
	all          = "all"
)

func (id ID) kind() string {
	if id == Database {
		return kindDatabase
	}
	return kindQueue
}

func (id ID) class() string {
	if id == Database {
		return all
	}
	return string(id.Class)
}

// String returns the name: database, or queue.NAME.CLASS.
func (id ID) String() string {
	if id == Database {
		return kindDatabase
	}
	return kindQueue + "." + id.Queue + "." + string(id.Class)
}

var queueName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// Parse parses a name.
func Parse(name string) (ID, error) {
	if name == kindDatabase {
		return Database, nil
	}
	if parts := strings.Split(name, "."); len(parts) == 3 && parts[0] == kindQueue && queueName.MatchString(parts[1]) && slices.Contains(Classes, Class(parts[2])) {
		return ID{Queue: parts[1], Class: Class(parts[2])}, nil
	}
	return ID{}, fmt.Errorf("breaker %.100q: want database, or queue.NAME.CLASS with a CLASS of claim, read, settle", name)
}

// Limits are the settings of a set.
type Limits struct {
	Enabled  bool   // if false, every call passes and nothing is counted
	Database Config // of the dependency as a whole
	Queue    Config // of each class of operations on each queue
}

// most bounds the number of breakers: queues beyond it are not guarded.
const most = 1000

// Set holds all breakers of a host. It is safe for concurrent use.
type Set struct {
	limits  atomic.Pointer[Limits]
	now     func() time.Time
	onMove  func(Change)
	metrics *metrics

	mu  sync.RWMutex // guards all
	all map[ID]*Breaker
}

// New returns a set with the database's breaker; the others are created at their first
// use. onMove is called for every change, one at a time for each breaker, and must not
// block.
func New(l Limits, onMove func(Change), reg prometheus.Registerer, now func() time.Time) *Set {
	s := &Set{now: now, onMove: onMove, all: map[ID]*Breaker{}}
	s.metrics = newMetrics(reg, s)
	s.limits.Store(&l)
	s.Of(Database)
	return s
}

// Reload puts other settings in force. An open breaker stays open for as long as planned;
// a new number of probes applies from the next Close or Reset on.
func (s *Set) Reload(l Limits) { s.limits.Store(&l) }

// Enabled reports whether breakers act.
func (s *Set) Enabled() bool { return s.limits.Load().Enabled }

func (s *Set) config(kind string) Config {
	if kind == kindDatabase {
		return s.limits.Load().Database
	}
	return s.limits.Load().Queue
}

func (s *Set) changed(c Change) { s.onMove(c) }

// Of returns the breaker of an id; nil: there are already too many.
func (s *Set) Of(id ID) *Breaker {
	s.mu.RLock()
	b := s.all[id]
	s.mu.RUnlock()
	if b != nil {
		return b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.all[id]; b != nil || len(s.all) >= most {
		return b
	}
	b = newBreaker(s, id)
	s.all[id] = b
	return b
}

// Status returns the status of all breakers, the database's first, then by name.
func (s *Set) Status() []Status {
	s.mu.RLock()
	every := make([]*Breaker, 0, len(s.all))
	for _, b := range s.all {
		every = append(every, b)
	}
	s.mu.RUnlock()
	status := make([]Status, len(every))
	for i, b := range every {
		status[i] = b.Status()
	}
	slices.SortFunc(status, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return status
}
