package pluginhost

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// router knows which generation serves what. Readers see one immutable table. A change
// builds a new one and stores it once, so everything affected by a change switches at the
// same time.
type router struct {
	table   atomic.Pointer[routes]
	changed chan struct{} // level-triggered

	mu sync.Mutex // serializes changes; guards the fields below
	plan
	version uint64 // of the plan; each change increments it
}

// plan is what a table is built from. Its maps are never modified, only replaced.
type plan struct {
	slots  map[string]served // by name of the slot
	owners map[target]string // what is served → the slot that claimed it first
	// abilities holds those of the last generation that served a target.
	abilities map[target][]string
}

// target is something that can be called: a handler, an algorithm, a reporter.
type target struct{ kind, name string }

func (t target) String() string { return fmt.Sprintf("%s %q", t.kind, t.name) }

// served holds the generations that a slot's calls go to.
type served struct {
	primary *generation // nil: none
	canary  *generation // gets weight percent of the calls; nil: none
	weight  uint32
	shadow  *generation // gets copies; nil: none
}

func (s served) has(g *generation) bool { return s.primary == g || s.canary == g || s.shadow == g }

type routes struct {
	handlers map[string]served // the targets of kind handler, for the hot path
	others   map[target]served
	services []Service // by name
}

func newRouter() *router {
	r := &router{changed: make(chan struct{}, 1)}
	r.table.Store(&routes{})
	return r
}

// acquire takes a lease on a generation that serves a handler: the generation is not
// retired until release. Calls with the same key go to the same generation as long as the
// table stays the same. The table is read again after the lease is counted: if the route
// has changed meanwhile, whoever retires the generation may have missed the lease, so it
// is undone.
func (r *router) acquire(handler, key string) (*generation, bool) {
	for {
		t := r.table.Load()
		g := t.handlers[handler].pick(key)
		if g == nil {
			return nil, false
		}
		g.leases.Add(1)
		if now := r.table.Load(); now == t || now.handlers[handler].has(g) {
			return g, true
		}
		g.release(1)
	}
}

// acquireTarget is acquire for any kind. If shadow is not nil, it should get a copy of
// the call, and is leased too.
func (r *router) acquireTarget(to target, key string) (g, shadow *generation) {
	find := func(t *routes) served {
		if to.kind == KindHandler {
			return t.handlers[to.name]
		}
		return t.others[to]
	}
	for {
		t := r.table.Load()
		s := find(t)
		g, shadow := s.pick(key), s.shadow
		if g == nil {
			return nil, nil
		}
		g.leases.Add(1)
		if shadow != nil {
			shadow.leases.Add(1)
		}
		if r.table.Load() == t {
			return g, shadow
		}
		g.release(1)
		if shadow != nil {
			shadow.release(1)
		}
	}
}

// answers returns who serves a target now; claimed reports whether it belongs to a slot,
// even one that is down.
func (r *router) answers(to target) (g *generation, claimed bool) {
	if s, ok := r.table.Load().others[to]; ok {
		return s.primary, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, claimed = r.owners[to]
	return nil, claimed
}

// pick returns the generation for a key.
func (s served) pick(key string) *generation {
	if s.canary != nil && spread(key) < s.weight {
		return s.canary
	}
	return s.primary
}

// spread maps a key to 0…99, the same on every host and forever (FNV-1a).
func spread(key string) uint32 {
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	h ^= h >> 15 // short keys that differ only at their end would stay together
	h *= 0x2c1b3c6d
	h ^= h >> 12
	return h % 100
}

// edit describes what a change does to one slot.
type edit struct {
	slot string
	to   served
	drop bool // the slot is gone: its claims are released
}

var errOwned = errors.New("one name in two slots")

// prepared is a change whose table has already been built: only one store is left to do.
// It is valid as long as nothing else changes.
type prepared struct {
	edits   []edit
	version uint64 // of the plan it was made from
	plan    plan
	table   *routes
}

// prepare builds the table for edits before they are made.
func (r *router) prepare(edits ...edit) (*prepared, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.build(edits)
}

// change makes all edits at once, or none if a name would be served by two slots. The
// first slot to claim a name keeps it, even while its plugin is restarted. ready,
// prepared for just these edits, saves the work; it may be nil or outdated.
func (r *router) change(ready *prepared, edits ...edit) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ready == nil || ready.version != r.version || !slices.Equal(ready.edits, edits) {
		var err error
		if ready, err = r.build(edits); err != nil {
			return err
		}
	}
	r.store(ready.plan, ready.table)
	return nil
}

// build builds the plan and the table for edits. The caller holds mu.
func (r *router) build(edits []edit) (*prepared, error) {
	next := plan{slots: clone(r.slots), owners: clone(r.owners), abilities: clone(r.abilities)}
	for _, e := range edits {
		if e.drop || e.to.primary != nil {
			maps.DeleteFunc(next.owners, func(_ target, slot string) bool { return slot == e.slot })
		}
	}
	for _, e := range edits {
		var taken []string
		for _, t := range e.claims() {
			if owner, ok := next.owners[t]; ok && owner != e.slot {
				taken = append(taken, fmt.Sprintf("%s is already served by plugin %q", t, owner))
			}
			next.owners[t] = e.slot
			if a, ok := e.to.primary.abilities[t]; ok {
				next.abilities[t] = a
			}
		}
		if len(taken) > 0 {
			return nil, fmt.Errorf("plugin %q: %s; a %s can have only one plugin: remove one of them (%w)", e.slot, strings.Join(taken, ", "), e.claims()[0].kind, errOwned)
		}
	}
	for _, e := range edits {
		if e.drop {
			delete(next.slots, e.slot)
		} else {
			next.slots[e.slot] = e.to
		}
	}
	return &prepared{edits: edits, version: r.version, plan: next, table: next.table()}, nil
}

// clone copies a map that may be nil.
func clone[K comparable, V any](m map[K]V) map[K]V {
	c := make(map[K]V, len(m))
	maps.Copy(c, m)
	return c
}

func (e edit) claims() []target {
	if e.drop || e.to.primary == nil {
		return nil
	}
	return e.to.primary.targets()
}

// remove takes a generation out of the table. If it was a slot's primary and next is not
// nil, next takes its place in the same moment.
func (r *router) remove(g, next *generation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.slots[g.plugin]
	if !ok || !s.has(g) {
		return
	}
	switch g {
	case s.primary:
		s.primary = next
		if next != nil && s.canary == next {
			s.canary, s.weight = nil, 0
		}
	case s.canary:
		s.canary, s.weight = nil, 0
	default:
		s.shadow = nil
	}
	left := plan{slots: clone(r.slots), owners: r.owners, abilities: r.abilities}
	left.slots[g.plugin] = s
	r.store(left, left.table())
}

// clear empties the table and forgets all claims.
func (r *router) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.store(plan{}, &routes{})
}

// store publishes a table. The caller holds mu.
func (r *router) store(p plan, t *routes) {
	r.plan = p
	r.version++
	r.table.Store(t)
	signal(r.changed)
}

// table builds what readers see. A name that only the primary serves goes to it whatever
// the canary's weight; one that only the canary serves is not served yet.
func (p plan) table() *routes {
	t := &routes{handlers: make(map[string]served, len(p.owners)), others: make(map[target]served)}
	for _, name := range slices.Sorted(maps.Keys(p.slots)) {
		s := p.slots[name]
		if s.primary == nil {
			continue
		}
		for _, to := range s.primary.targets() {
			if owner, ok := p.owners[to]; ok && owner != name {
				continue // a standby took over meanwhile, and another slot has claimed the name since
			}
			use := s
			if s.canary != nil && !s.canary.serves(to) {
				use.canary, use.weight = nil, 0
			}
			if s.shadow != nil && !s.shadow.serves(to) {
				use.shadow = nil
			}
			if to.kind == KindHandler {
				t.handlers[to.name] = use
			} else {
				t.others[to] = use
			}
		}
		if len(s.primary.handlers) > 0 {
			t.services = append(t.services, Service{Name: s.primary.plugin, Handlers: s.primary.handlers, Window: s.primary.window})
		}
	}
	return t
}
