package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// Shape is a kind of load.
type Shape struct {
	Name    string
	Summary string

	interval time.Duration
	rows     int
	load     func(at, length float64, r *rand.Rand) (perSecond, service float64)
}

const hour = 3600.0

// Shapes lists the kinds of loads.
func Shapes() []Shape {
	return []Shape{
		{"steady", "4 a second for two hours", 30 * time.Second, 240, func(float64, float64, *rand.Rand) (float64, float64) {
			return 4, 2
		}},
		{"season", "seven days: quiet nights, a steep morning, a dip at noon, weekends at a third", 15 * time.Minute, 672, season},
		{"spike", "two hours of 2 a second, and ten minutes of 20 in the middle", 30 * time.Second, 240, func(at, length float64, _ *rand.Rand) (float64, float64) {
			if at >= length/2 && at < length/2+600 {
				return 20, 2
			}
			return 2, 2
		}},
		{"ramp", "from 1 to 16 a second within two hours", 30 * time.Second, 240, func(at, length float64, _ *rand.Rand) (float64, float64) {
			return 1 + 15*at/length, 2
		}},
		{"onoff", "ten minutes of 10 a second, ten minutes of nearly nothing, for four hours", 30 * time.Second, 480, func(at, _ float64, _ *rand.Rand) (float64, float64) {
			if math.Mod(at, 1200) < 600 {
				return 10, 2
			}
			return 0.1, 2
		}},
		{"heavytail", "batches and work of very different sizes (Pareto) for two hours", 30 * time.Second, 240, func(_, _ float64, r *rand.Rand) (float64, float64) {
			return 1.5 * pareto(r, 1.6, 20), 0.8 * pareto(r, 1.8, 15)
		}},
	}
}

// season is a week of a business: by day and hour.
func season(at, _ float64, _ *rand.Rand) (perSecond, service float64) {
	clock := math.Mod(at, 24*hour) / hour
	day := int(at/(24*hour)) % 7
	morning := 1 / (1 + math.Exp(-(clock-8.5)*4)) // work begins within an hour
	evening := 1 / (1 + math.Exp((clock-18)*1.5))
	noon := 1 - 0.35*math.Exp(-(clock-12.5)*(clock-12.5)/0.5)
	busy := morning * evening * noon
	if day >= 5 {
		busy /= 3
	}
	return 0.4 + 5*busy, 2
}

// pareto returns a value of at least 1 with a heavy tail, cut off at most.
func pareto(r *rand.Rand, alpha, most float64) float64 {
	return min(math.Pow(1-r.Float64(), -1/alpha), most)
}

// Generate makes a trace of a shape. The numbers of arrivals are random
// (Poisson).
func Generate(shape string, seed uint64) (*Trace, error) {
	var names []string
	for _, s := range Shapes() {
		if s.Name == shape {
			return s.generate(seed), nil
		}
		names = append(names, s.Name)
	}
	return nil, fmt.Errorf("there is no shape %q; there are %s", shape, strings.Join(names, ", "))
}

func (s Shape) generate(seed uint64) *Trace {
	t := &Trace{Name: s.Name, Interval: s.interval, Comments: []string{
		"load trace, version 1: each row says how many pieces of work arrive from then on until the next,",
		"and how many seconds of work each is on average.",
		s.Name + ": " + s.Summary + ".",
		fmt.Sprintf("Not measured: made by 'tasker scale generate-trace %s --seed %d'.", s.Name, seed),
	}}
	r := random(seed, 1)
	length := (time.Duration(s.rows) * s.interval).Seconds()
	for i := range s.rows {
		// The middle of the row stands for it.
		at := (time.Duration(i)*s.interval + s.interval/2).Seconds()
		perSecond, service := s.load(at, length, r)
		t.Rows = append(t.Rows, Row{
			Arrivals: poisson(r, perSecond*s.interval.Seconds()),
			Service:  math.Round(service*1000) / 1000,
		})
	}
	return t
}

func random(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) } // it should be the same every time

// poisson draws a count with the given mean, by adding up waiting times.
func poisson(r *rand.Rand, mean float64) int {
	n, at := 0, r.ExpFloat64()
	for at < mean {
		n++
		at += r.ExpFloat64()
	}
	return n
}
