package graph

import (
	"slices"
	"strings"

	"github.com/mattn/go-runewidth"
)

// canvas is a grid of characters.
type canvas struct {
	rows [][]cell
}

type cell struct {
	text  string // empty: a space, or covered by a wide character before
	style string
	cover bool
	lines int // the lines that meet here: a sum of the sides below
}

// The sides of a cell to which lines go.
const (
	north = 1 << iota
	east
	south
	west
)

// joints are the characters for the sides that lines go to.
var joints = map[int]string{
	north | south: "│", east | west: "─", south | east: "┌", south | west: "┐", north | east: "└", north | west: "┘",
	north | south | east: "├", north | south | west: "┤", east | west | south: "┬", east | west | north: "┴",
	north | east | south | west: "┼", north: "│", south: "│", east: "─", west: "─",
}

func (c *canvas) at(x, y int) *cell {
	for len(c.rows) <= y {
		c.rows = append(c.rows, nil)
	}
	for len(c.rows[y]) <= x {
		c.rows[y] = append(c.rows[y], cell{})
	}
	return &c.rows[y][x]
}

func (c *canvas) line(x, y, sides int) { c.at(x, y).lines |= sides }

func (c *canvas) text(x, y int, text, style string) {
	for _, r := range text {
		*c.at(x, y) = cell{text: string(r), style: style}
		for w := runewidth.RuneWidth(r); w > 1; w-- {
			x++
			*c.at(x, y) = cell{cover: true}
		}
		x++
	}
}

// Draw draws the graph. paint applies a style to a text.
func Draw(nodes []Node, paint func(style, text string) string) string {
	if len(nodes) == 0 {
		return ""
	}
	layers := layout(nodes)
	var c canvas
	y := 0
	for i, layer := range layers {
		height := 0
		for _, p := range layer {
			if p.node >= 0 {
				height = max(height, len(nodes[p.node].Lines)+2)
			}
		}
		for _, p := range layer {
			if p.node >= 0 {
				c.box(p, y, height, nodes[p.node].Lines)
				continue
			}
			for row := range height {
				c.line(p.x, y+row, north|south)
			}
		}
		y += height
		if i+1 < len(layers) {
			y += c.channel(layer, y)
		}
	}
	return c.print(paint)
}

func boxWidth(n *Node) int {
	w := 0
	for _, l := range n.Lines {
		w = max(w, runewidth.StringWidth(l.Text))
	}
	return w + 4
}

// box draws a node, and the line from its bottom to the channel if another box in the
// layer is taller.
func (c *canvas) box(p *place, y, height int, lines []Text) {
	bottom := y + len(lines) + 1
	for x := p.x + 1; x < p.x+p.width-1; x++ {
		c.line(x, y, east|west)
		c.line(x, bottom, east|west)
	}
	c.line(p.x, y, south|east)
	c.line(p.x+p.width-1, y, south|west)
	c.line(p.x, bottom, north|east)
	c.line(p.x+p.width-1, bottom, north|west)
	for i, l := range lines {
		c.line(p.x, y+1+i, north|south)
		c.line(p.x+p.width-1, y+1+i, north|south)
		c.text(p.x+2, y+1+i, l.Text, l.Style)
	}
	if len(p.down) > 0 {
		c.line(p.centre(), bottom, south)
		for row := bottom + 1; row < y+height; row++ {
			c.line(p.centre(), row, north|south)
		}
	}
}

// channel draws the edges between a layer and the next one, and returns how many rows
// they take.
func (c *canvas) channel(layer []*place, y int) int {
	rows := assignRows(layer)
	end := y + rows // of the arrows
	type line struct{ x, from, to int }
	var verticals []line
	for _, p := range layer {
		if len(p.down) == 0 {
			continue
		}
		x := p.centre()
		if straight(p) {
			verticals = append(verticals, line{x, y, end})
			continue
		}
		bus := y + p.bus
		verticals = append(verticals, line{x, y, bus})
		c.line(x, bus, north)
		for col := p.left; col <= p.right; col++ {
			if col > p.left {
				c.line(col, bus, west)
			}
			if col < p.right {
				c.line(col, bus, east)
			}
		}
		for _, d := range p.down {
			c.line(d.entry(), bus, south)
			verticals = append(verticals, line{d.entry(), bus + 1, end})
		}
	}
	for _, v := range verticals {
		for row := v.from; row < v.to; row++ {
			// A row that does not end here passes under the line.
			if cell := c.at(v.x, row); cell.lines == east|west && !busEnds(layer, v.x, row-y) {
				cell.lines = north | south
			} else {
				cell.lines |= north | south
			}
		}
	}
	for _, p := range layer {
		for _, d := range p.down {
			if d.node >= 0 {
				c.text(d.entry(), end, "▼", "")
			} else {
				c.line(d.entry(), end, north|south)
			}
		}
	}
	return rows + 1
}

// busEnds reports whether a row of the channel belongs to a place that enters or leaves
// it in this column.
func busEnds(layer []*place, x, row int) bool {
	return slices.ContainsFunc(layer, func(p *place) bool {
		return len(p.down) > 0 && !straight(p) && p.bus == row &&
			(p.centre() == x || slices.ContainsFunc(p.down, func(d *place) bool { return d.entry() == x }))
	})
}

// straight reports whether a place has only one edge, which goes straight down.
func straight(p *place) bool { return len(p.down) == 1 && p.down[0].entry() == p.centre() }

// assignRows assigns a row of the channel to each place whose edges spread. Rows overlap
// only if they lead to the same places. It returns the number of rows.
func assignRows(layer []*place) int {
	var spread []*place
	for _, p := range layer {
		if len(p.down) == 0 || straight(p) {
			continue
		}
		p.left, p.right = p.centre(), p.centre()
		for _, d := range p.down {
			p.left, p.right = min(p.left, d.entry()), max(p.right, d.entry())
		}
		spread = append(spread, p)
	}
	rows := 0
	for i, p := range spread {
		p.bus = 0
		for slices.ContainsFunc(spread[:i], func(o *place) bool {
			return o.bus == p.bus && o.left <= p.right && p.left <= o.right && !same(o.down, p.down)
		}) {
			p.bus++
		}
		rows = max(rows, p.bus+1)
	}
	return rows
}

func same(a, b []*place) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(p *place) bool { return !slices.Contains(b, p) })
}

func (c *canvas) print(paint func(style, text string) string) string {
	var out strings.Builder
	for _, row := range c.rows {
		var line strings.Builder
		for i := 0; i < len(row); {
			style, j := row[i].style, i
			var run strings.Builder
			for ; j < len(row) && row[j].style == style; j++ {
				switch cell := row[j]; {
				case cell.cover:
				case cell.text != "":
					run.WriteString(cell.text)
				case cell.lines != 0:
					run.WriteString(joints[cell.lines])
				default:
					run.WriteByte(' ')
				}
			}
			line.WriteString(paint(style, run.String()))
			i = j
		}
		out.WriteString(strings.TrimRight(line.String(), " "))
		out.WriteByte('\n')
	}
	return out.String()
}
