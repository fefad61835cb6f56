package pluginhost

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// router says which generation serves a handler. Readers see one immutable
// table; a change builds a new one and stores it once, so all handlers of a
// plugin change over together.
type router struct {
	table   atomic.Pointer[routes]
	changed chan struct{} // level-triggered

	mu     sync.Mutex        // serializes changes
	owners map[string]string // handler → the plugin that claimed it first
}

type routes struct {
	handlers map[string]*generation
	services []Service // by name
}

func newRouter() *router {
	r := &router{changed: make(chan struct{}, 1), owners: make(map[string]string)}
	r.table.Store(&routes{})
	return r
}

// acquire takes a lease on the generation that serves a handler: the
// generation is not retired until release. The table is read again after the
// lease is counted; if the route has moved meanwhile, whoever retires the
// generation may have missed the lease, so it is undone.
func (r *router) acquire(handler string) (*generation, bool) {
	for {
		t := r.table.Load()
		g := t.handlers[handler]
		if g == nil {
			return nil, false
		}
		g.leases.Add(1)
		if now := r.table.Load(); now == t || now.handlers[handler] == g {
			return g, true
		}
		g.release(1)
	}
}

// put routes a generation's handlers to it, in place of the plugin's
// generation before. The first plugin to claim a handler keeps it, also while
// it is restarted.
func (r *router) put(g *generation) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var taken []string
	for _, h := range g.handlers {
		if owner, ok := r.owners[h]; ok && owner != g.plugin {
			taken = append(taken, fmt.Sprintf("handler %q is served by plugin %q already", h, owner))
		}
	}
	if len(taken) > 0 {
		return fmt.Errorf("plugin %q: %s; a handler has one plugin: remove one of them", g.plugin, strings.Join(taken, ", "))
	}
	next := r.without(func(old *generation) bool { return old.plugin == g.plugin })
	for _, h := range g.handlers {
		r.owners[h] = g.plugin
		next[h] = g
	}
	r.store(next)
	return nil
}

// remove takes a generation out of the table.
func (r *router) remove(g *generation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.store(r.without(func(old *generation) bool { return old == g }))
}

// clear empties the table and forgets who owns what.
func (r *router) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.owners)
	r.store(nil)
}

func (r *router) without(drop func(*generation) bool) map[string]*generation {
	next := maps.Clone(r.table.Load().handlers)
	maps.DeleteFunc(next, func(_ string, g *generation) bool { return drop(g) })
	if next == nil {
		next = make(map[string]*generation)
	}
	return next
}

func (r *router) store(handlers map[string]*generation) {
	services := make(map[string]Service)
	for _, g := range handlers {
		services[g.plugin] = Service{Name: g.plugin, Handlers: g.handlers, Window: g.window}
	}
	t := &routes{handlers: handlers}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		t.services = append(t.services, services[name])
	}
	r.table.Store(t)
	signal(r.changed)
}
