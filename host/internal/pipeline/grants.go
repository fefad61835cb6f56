package pipeline

import (
	"slices"
	"sync"
)

// ticket is a call that may lease steps to this host. Calls are numbered in the
// order in which they begin; 0 is none.
type ticket uint64

// grants knows which calls that may lease steps to this host are under way: each
// from before it is sent until what it was given is held, or it has failed. What a
// call that has failed was given all the same, then or later, nobody will hold. A
// call that is made again is another one: it is never given what the first was.
//
// A step that the database shows leased was leased by a call that had begun before.
// So once all calls have ended that began before the answer was there, either the
// lease has been held, or its reply was lost; how long that takes does not matter.
type grants struct {
	mu   sync.Mutex
	last ticket   // began last
	open []ticket // are under way, oldest first
}

// begin says that a call is about to be sent.
func (g *grants) begin() ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last++
	g.open = append(g.open, g.last)
	return g.last
}

// end says that what a call was given is held, or that it has failed. To say so
// again changes nothing.
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

// ended reports whether a call and all that began before it have ended.
func (g *grants) ended(t ticket) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open) == 0 || g.open[0] > t
}
