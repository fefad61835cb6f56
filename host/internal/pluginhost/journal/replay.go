package journal

import (
	"cmp"
	"slices"
	"time"
)

// Route is where a slot's calls went.
type Route struct {
	Primary uint64 // generation; 0: none
	Canary  uint64
	Weight  int // percent that the canary got
	Shadow  uint64
}

// Replay returns the route table at a given moment: the slots that had a generation then.
// The events may come in any order, but must be those of one host, since each host has
// its own route table.
func Replay(events []Event, at time.Time) map[SlotID]Route {
	sorted := slices.Clone(events)
	slices.SortStableFunc(sorted, func(a, b Event) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
	})
	table := map[SlotID]Route{}
	for _, e := range sorted {
		if e.At.After(at) {
			break
		}
		r := table[e.Slot]
		r.leave(e.Generation)
		switch e.To {
		case Active:
			r.Primary = e.Generation
		case Canary:
			r.Canary, r.Weight = e.Generation, e.Weight
		case Shadow:
			r.Shadow = e.Generation
		}
		if table[e.Slot] = r; r == (Route{}) {
			delete(table, e.Slot)
		}
	}
	return table
}

// leave removes a generation from the route.
func (r *Route) leave(generation uint64) {
	if r.Primary == generation {
		r.Primary = 0
	}
	if r.Canary == generation {
		r.Canary, r.Weight = 0, 0
	}
	if r.Shadow == generation {
		r.Shadow = 0
	}
}
