package pipeline

import (
	"slices"
	"sync"
)

// ticket identifies a call that may lease steps to this host. Calls are numbered in the
// order in which they begin; 0 means none.
type ticket uint64

// grants tracks which calls that may lease steps to this host are in progress: each from
// before it is sent until the leases it brought are held, or it has failed. Leases that a
// failed call was granted nevertheless, then or later, are never held. A repeated call is
// a new one: it never receives what the first was granted.
//
// A step that the database shows as leased was leased by a call that had begun before. So
// once all calls that began before the database answered have ended, either the lease has
// been held, or its reply was lost; how long that takes does not matter.
type grants struct {
	mu   sync.Mutex
	last ticket   // the call that began last
	open []ticket // calls in progress, oldest first
}

// begin notes that a call is about to be sent.
func (g *grants) begin() ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last++
	g.open = append(g.open, g.last)
	return g.last
}

// end notes that the leases a call brought are held, or that it has failed. Calling it
// again has no effect.
func (g *grants) end(t ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at, found := slices.BinarySearch(g.open, t); found {
		g.open = slices.Delete(g.open, at, at+1)
	}
}

// mark returns the call that began last.
func (g *grants) mark() ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// ended reports whether a call and all calls that began before it have ended.
func (g *grants) ended(t ticket) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open) == 0 || g.open[0] > t
}
