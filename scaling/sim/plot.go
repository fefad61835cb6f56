package sim

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The dimensions of the picture, in pixels.
const (
	plotWidth   = 960
	plotLeft    = 64
	plotRight   = 20
	plotTop     = 48 // and a line for every two algorithms
	legendLine  = 20
	panelHeight = 170
	panelGap    = 44
	plotBottom  = 44
	plotColumns = 420 // maximum number of points of a line
)

// Colours that differ for the colour-blind too (Okabe and Ito).
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"}

const loadColour = "#666666"

// line is one series of a panel.
type line struct {
	colour string
	values []float64
	steps  bool // stays until it changes, instead of sloping
}

// panel is one of the diagrams that are stacked over the same time axis.
type panel struct {
	title string
	lines []line
}

// Plot draws results of one trace as SVG: the load, what waits, and the size
// that each algorithm gave the pool.
func Plot(out io.Writer, t *Trace, results []*Result) error {
	p := &plot{w: bufio.NewWriter(out), length: t.Length()}
	load := panel{title: "load: work that arrives, pieces a second", lines: []line{{
		colour: loadColour, steps: true,
		values: largest(t.Rows, func(r Row) float64 { return float64(r.Arrivals) / t.Interval.Seconds() }),
	}}}
	backlog := panel{title: "backlog: pieces that wait (the most at a time)"}
	size := panel{title: "size: executors that have started"}
	for i, r := range results {
		colour := colours[i%len(colours)]
		backlog.lines = append(backlog.lines, line{colour: colour, values: largest(r.Points, func(p Point) float64 { return float64(p.Backlog) })})
		size.lines = append(size.lines, line{colour: colour, values: largest(r.Points, func(p Point) float64 { return float64(p.Size) }), steps: true})
	}
	p.draw(t, results, []panel{load, backlog, size})
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	return nil
}

// largest thins out a series: of the points that fall into one column it keeps
// the largest, so that no peak is lost.
func largest[T any](points []T, value func(T) float64) []float64 {
	if len(points) == 0 {
		return nil
	}
	columns := min(plotColumns, len(points))
	out := make([]float64, columns)
	for i := range columns {
		from, to := i*len(points)/columns, (i+1)*len(points)/columns
		for _, p := range points[from:to] {
			out[i] = max(out[i], value(p))
		}
	}
	return out
}

type plot struct {
	w      *bufio.Writer
	length time.Duration
}

func (p *plot) f(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) }

func (p *plot) text(x, y float64, class, text string) {
	p.f(`<text x="%s" y="%s" class="%s">%s</text>`, px(x), px(y), class, escape(text))
}

func (p *plot) draw(t *Trace, results []*Result, panels []panel) {
	top := plotTop + (len(results)+1)/2*legendLine
	height := top + len(panels)*(panelHeight+panelGap) - panelGap + plotBottom
	p.f(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`, plotWidth, height, plotWidth, height)
	title := "Trace " + t.Name + ", replayed"
	p.f(`<title>%s</title>`, escape(title))
	p.f(`<style>
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #333 }
.title { font-size: 16px; font-weight: 600 } .panel { font-weight: 600 } .tick { fill: #666; font-size: 11px }
.left { text-anchor: end } .middle { text-anchor: middle }
.grid { stroke: #e4e4e4; stroke-width: 1 } .axis { stroke: #999; stroke-width: 1 }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-opacity: 0.9 }
</style>`)
	p.f(`<rect width="100%%" height="100%%" fill="#ffffff"/>`)
	p.text(plotLeft, 24, "title", title)
	p.legend(results)
	for i, q := range panels {
		p.panel(q, float64(top+i*(panelHeight+panelGap)))
	}
	p.f(`</svg>`)
}

// legend explains the colours, with cost and lateness.
func (p *plot) legend(results []*Result) {
	for i, r := range results {
		x := plotLeft + float64(i%2)*(plotWidth-plotLeft)/2
		y := float64(plotTop - 6 + i/2*legendLine)
		p.f(`<line x1="%s" y1="%s" x2="%s" y2="%s" stroke="%s" stroke-width="3"/>`, px(x), px(y-4), px(x+18), px(y-4), colours[i%len(colours)])
		p.text(x+24, y, "", fmt.Sprintf("%s: %.1f executors on average, %.2f%% late", r.Algorithm, r.MeanSize, 100*r.LateShare))
	}
}

func (p *plot) panel(q panel, top float64) {
	bottom := top + panelHeight
	most := 0.0
	for _, l := range q.lines {
		if len(l.values) > 0 {
			most = max(most, slices.Max(l.values))
		}
	}
	step := round(max(most, 1) / 4)
	most = step * math.Ceil(max(most, 1)/step)
	p.text(plotLeft, top-8, "panel", q.title)
	for v := 0.0; v <= most+step/2; v += step {
		y := bottom - v/most*panelHeight
		p.f(`<line x1="%d" y1="%s" x2="%d" y2="%s" class="grid"/>`, plotLeft, px(y), plotWidth-plotRight, px(y))
		p.text(plotLeft-8, y+4, "tick left", strconv.FormatFloat(v, 'g', 6, 64))
	}
	p.clock(top, bottom)
	for _, l := range q.lines {
		p.f(`<path d="%s" class="line" stroke="%s"/>`, path(l, bottom, most), l.colour)
	}
	p.f(`<line x1="%d" y1="%s" x2="%d" y2="%s" class="axis"/>`, plotLeft, px(bottom), plotWidth-plotRight, px(bottom))
}

// clock draws the time axis below a panel.
func (p *plot) clock(top, bottom float64) {
	every := p.length
	for _, d := range []time.Duration{
		time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
		time.Hour, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour,
	} {
		if p.length/d <= 12 {
			every = d
			break
		}
	}
	for at := time.Duration(0); at <= p.length; at += every {
		x := plotLeft + at.Seconds()/p.length.Seconds()*(plotWidth-plotLeft-plotRight)
		p.f(`<line x1="%s" y1="%s" x2="%s" y2="%s" class="grid"/>`, px(x), px(top), px(x), px(bottom))
		p.text(x, bottom+16, "tick middle", clockLabel(at))
	}
}

func clockLabel(at time.Duration) string {
	switch {
	case at == 0:
		return "0"
	case at%(24*time.Hour) == 0:
		return fmt.Sprintf("%d d", at/(24*time.Hour))
	case at%time.Hour == 0:
		return fmt.Sprintf("%d h", at/time.Hour)
	case at > time.Hour:
		return fmt.Sprintf("%d h %02d", at/time.Hour, at%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%d min", at/time.Minute)
	}
}

func path(l line, bottom, most float64) string {
	var b strings.Builder
	width := float64(plotWidth-plotLeft-plotRight) / float64(max(len(l.values), 1))
	for i, v := range l.values {
		x, y := plotLeft+float64(i)*width, bottom-v/most*panelHeight
		switch {
		case i == 0:
			fmt.Fprintf(&b, "M%s %s", px(x), px(y))
		case l.steps:
			fmt.Fprintf(&b, "H%sV%s", px(x), px(y))
		default:
			fmt.Fprintf(&b, "L%s %s", px(x), px(y))
		}
	}
	if len(l.values) > 0 {
		fmt.Fprintf(&b, "H%d", plotWidth-plotRight)
	}
	return b.String()
}

// round returns the smallest step of 1, 2 or 5 times a power of ten that is not
// less than v.
func round(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= v*(1-1e-9) {
			return m * power
		}
	}
	return 10 * power
}

func px(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder returns no errors
	return b.String()
}
