package graph

import (
	"slices"
)

// Node is a box. Its parents are the indices of nodes before it.
type Node struct {
	Lines   []Text // the box's text; at least one line
	Parents []int
}

// Text is a line of a box. The caller defines the styles.
type Text struct{ Text, Style string }

// Distances of the drawing, in columns.
const (
	gap    = 2  // between neighbours
	sweeps = 12 // for ordering, and for placing
)

// place is a node in its layer, or the point where an edge passes through the layer.
type place struct {
	node        int // -1: an edge passes
	layer       int
	x, width    int // left column
	up, down    []*place
	enter       int // the column at which edges enter, relative to x
	weight      float64
	bus         int // the row of the channel below in which its edges spread
	left, right int // of that row
}

func (p *place) centre() int { return p.x + p.width/2 }
func (p *place) entry() int  { return p.x + p.enter }

// layout puts nodes into layers and columns.
func layout(nodes []Node) [][]*place {
	layers := layered(nodes)
	for _, layer := range layers {
		for i, p := range layer {
			p.x = i
		}
	}
	for range sweeps {
		for i := 1; i < len(layers); i++ {
			reorder(layers[i], func(p *place) []*place { return p.up })
		}
		for i := len(layers) - 2; i >= 0; i-- {
			reorder(layers[i], func(p *place) []*place { return p.down })
		}
	}
	for _, layer := range layers {
		x := 0
		for _, p := range layer {
			p.x = x
			x += p.width + gap
		}
	}
	for range sweeps {
		for i := 1; i < len(layers); i++ {
			pull(layers[i], func(p *place) []*place { return p.up })
		}
		for i := len(layers) - 2; i >= 0; i-- {
			pull(layers[i], func(p *place) []*place { return p.down })
		}
	}
	least := 0
	for _, layer := range layers {
		least = min(least, layer[0].x)
	}
	for i, layer := range layers {
		for _, p := range layer {
			p.x -= least
		}
		if i > 0 {
			keepApart(layers[i-1], layer)
		}
	}
	return layers
}

// layered returns the nodes by layer, with a place in each layer that an edge passes
// through.
func layered(nodes []Node) [][]*place {
	var layers [][]*place
	add := func(p *place) *place {
		for len(layers) <= p.layer {
			layers = append(layers, nil)
		}
		layers[p.layer] = append(layers[p.layer], p)
		return p
	}
	places := make([]*place, len(nodes))
	for i := range nodes {
		p := &place{node: i, width: boxWidth(&nodes[i])}
		p.enter = p.width / 2
		for _, parent := range nodes[i].Parents {
			p.layer = max(p.layer, places[parent].layer+1)
		}
		places[i] = add(p)
	}
	for i := range nodes {
		for _, parent := range nodes[i].Parents {
			above := places[parent]
			for above.layer+1 < places[i].layer {
				above = join(above, add(&place{node: -1, layer: above.layer + 1, width: 1}))
			}
			join(above, places[i])
		}
	}
	return layers
}

func join(above, below *place) *place {
	above.down, below.up = append(above.down, below), append(below.up, above)
	return below
}

// reorder sorts a layer by the positions of its places' neighbours.
func reorder(layer []*place, neighbours func(*place) []*place) {
	for i, p := range layer {
		p.weight = float64(i)
		if near := neighbours(p); len(near) > 0 {
			sum := 0.0
			for _, n := range near {
				sum += n.position()
			}
			p.weight = sum / float64(len(near))
		}
	}
	slices.SortStableFunc(layer, func(a, b *place) int {
		switch {
		case a.weight < b.weight:
			return -1
		case a.weight > b.weight:
			return 1
		}
		return 0
	})
	for i, p := range layer {
		p.x = i // the position in the layer until it is placed
	}
}

// position is the position of a place in its layer while layers are being ordered.
func (p *place) position() float64 { return float64(p.x) }

// pull moves the places of a layer towards the middle of their neighbours, as far as
// their order and widths allow.
func pull(layer []*place, neighbours func(*place) []*place) {
	want := make([]int, len(layer))
	for i, p := range layer {
		want[i] = p.x
		if near := neighbours(p); len(near) > 0 {
			left, right := near[0].centre(), near[0].centre()
			for _, n := range near {
				left, right = min(left, n.centre()), max(right, n.centre())
			}
			want[i] = (left+right)/2 - p.width/2
		}
	}
	// Places that touch move as a block, to the mean of their wanted positions.
	type block struct {
		first, size, sum int // sum of the left ends that its places want
		x                int
	}
	var blocks []block
	offset := make([]int, len(layer)) // within the block
	for i := range layer {
		b := block{first: i, size: 1, sum: want[i], x: want[i]}
		offset[i] = 0
		for len(blocks) > 0 {
			last := &blocks[len(blocks)-1]
			end := last.first + last.size - 1
			right := offset[end] + layer[end].width + gap
			if last.x+right <= b.x {
				break
			}
			for j := b.first; j < b.first+b.size; j++ {
				offset[j] += right
			}
			b = block{first: last.first, size: last.size + b.size, sum: last.sum + b.sum - right*b.size}
			b.x = floorDiv(b.sum, b.size)
			blocks = blocks[:len(blocks)-1]
		}
		blocks = append(blocks, b)
	}
	for _, b := range blocks {
		for j := b.first; j < b.first+b.size; j++ {
			layer[j].x = b.x + offset[j]
		}
	}
}

func floorDiv(a, b int) int {
	if a < 0 {
		return -((-a + b - 1) / b)
	}
	return a / b
}

// keepApart moves the entry of a box away from under a line that does not lead to it.
func keepApart(above, layer []*place) {
	for _, p := range layer {
		if p.node < 0 {
			continue
		}
		for _, shift := range []int{0, 1, -1, 2, -2} {
			p.enter = p.width/2 + shift
			if !slices.ContainsFunc(above, func(a *place) bool { return a.centre() == p.entry() && !slices.Contains(a.down, p) }) {
				break
			}
		}
	}
}
