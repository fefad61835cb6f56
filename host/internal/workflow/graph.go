package workflow

import (
	"container/heap"
	"slices"
)

// Ancestors returns the steps that must be complete before step n may run, each once,
// nearest first: ordered by the shortest path to n, then by number.
func (p *Plan) Ancestors(n int) []int32 {
	seen := make([]bool, len(p.Steps))
	var out []int32
	for level := p.Steps[n].Parents; len(level) > 0; {
		first := len(out)
		for _, a := range level {
			if !seen[a] {
				seen[a] = true
				out = append(out, a)
			}
		}
		slices.Sort(out[first:])
		level = nil
		for _, a := range out[first:] {
			for _, parent := range p.Steps[a].Parents {
				if !seen[parent] {
					level = append(level, parent)
				}
			}
		}
	}
	return out
}

// topological orders the nodes of a graph, given by their parents, so that parents come
// first and, of several possible next nodes, the lowest (Kahn's algorithm). Nodes on a
// cycle or below one are not ordered but returned in rest.
func topological(parents [][]int) (order, rest []int) {
	children := make([][]int, len(parents))
	waits := make([]int, len(parents))
	for n, ps := range parents {
		waits[n] = len(ps)
		for _, p := range ps {
			children[p] = append(children[p], n)
		}
	}
	var ready lowestFirst
	for n, w := range waits {
		if w == 0 {
			ready = append(ready, n) // ascending, so it is a heap
		}
	}
	order = make([]int, 0, len(parents))
	for len(ready) > 0 {
		n := heap.Pop(&ready).(int)
		order = append(order, n)
		for _, c := range children[n] {
			if waits[c]--; waits[c] == 0 {
				heap.Push(&ready, c)
			}
		}
	}
	for n, w := range waits {
		if w > 0 {
			rest = append(rest, n)
		}
	}
	return order, rest
}

// maxCycles bounds how many cycles are reported.
const maxCycles = 10

// cycles returns cycles among the nodes that topological could not order, with no node in
// two of them. Each is in execution order, the lowest node first.
func cycles(parents [][]int, rest []int) [][]int {
	var found [][]int
	for len(rest) > 0 && len(found) < maxCycles {
		cycle := cycleIn(parents, rest)
		found = append(found, cycle)
		rest = without(parents, rest, cycle)
	}
	return found
}

// cycleIn finds a cycle: every node of rest has a parent in rest, so walking from parent
// to parent eventually returns to a node.
func cycleIn(parents [][]int, rest []int) []int {
	in := make(map[int]bool, len(rest))
	for _, n := range rest {
		in[n] = true
	}
	at := map[int]int{} // position of each node on the walk
	var walk []int
	for n := rest[0]; ; {
		if start, seen := at[n]; seen {
			cycle := slices.Clone(walk[start:])
			slices.Reverse(cycle) // the walk went from children to parents
			lowest := slices.Index(cycle, slices.Min(cycle))
			return slices.Concat(cycle[lowest:], cycle[:lowest])
		}
		at[n] = len(walk)
		walk = append(walk, n)
		next := slices.IndexFunc(parents[n], func(p int) bool { return in[p] })
		n = parents[n][next]
	}
}

// without returns the nodes of rest that still cannot be ordered when the nodes of a
// cycle are removed.
func without(parents [][]int, rest, cycle []int) []int {
	number := make(map[int]int, len(rest))
	for i, n := range rest {
		number[n] = i
	}
	for _, n := range cycle {
		delete(number, n)
	}
	sub := make([][]int, len(rest))
	for n, i := range number {
		for _, p := range parents[n] {
			if j, there := number[p]; there {
				sub[i] = append(sub[i], j)
			}
		}
	}
	_, left := topological(sub)
	out := make([]int, len(left))
	for i, j := range left {
		out[i] = rest[j]
	}
	return out
}

// renumber returns the parents of each ordered node by their position in the order,
// ascending.
func renumber(order []int, parents [][]int) [][]int32 {
	place := make([]int32, len(parents))
	for n, i := range order {
		place[i] = int32(n) // bounded by vocab.MaxSteps
	}
	out := make([][]int32, len(order))
	for n, i := range order {
		for _, p := range parents[i] {
			out[n] = append(out[n], place[p])
		}
		slices.Sort(out[n])
	}
	return out
}

// addChildren fills in the steps' children from their parents, ascending.
func addChildren(steps []Step) {
	for n := range steps {
		for _, p := range steps[n].Parents {
			steps[p].Children = append(steps[p].Children, int32(n))
		}
	}
}

// lowestFirst is a heap of nodes.
type lowestFirst []int

func (h lowestFirst) Len() int           { return len(h) }
func (h lowestFirst) Less(i, j int) bool { return h[i] < h[j] }
func (h lowestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lowestFirst) Push(n any)        { *h = append(*h, n.(int)) }
func (h *lowestFirst) Pop() any {
	last := len(*h) - 1
	n := (*h)[last]
	*h = (*h)[:last]
	return n
}
