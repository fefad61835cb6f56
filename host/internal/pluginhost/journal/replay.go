package journal

import (
	"cmp"
	"slices"
	"time"
)

// Route is what a slot's calls went to.
type Route struct {
	Primary uint64 // generation; 0: none
	Canary  uint64
	Weight  int // percent that the canary got
	Shadow  uint64
}

// Replay returns the route table as it was at a moment: the slots that had a
// generation then. The events may come in any order; those of one host only,
// since each host has a route table of its own.
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

// leave takes a generation out of where it was.
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
