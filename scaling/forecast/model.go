package forecast

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Kind says how level and season combine.
type Kind string

// The kinds of models.
const (
	Additive       Kind = "additive"       // the season adds the same at every level
	Multiplicative Kind = "multiplicative" // the season grows with the level; all values are above zero
)

// Params holds the smoothing parameters, each from 0 to 1: how much weight each new value has,
// and how much of the trend is left after a step.
type Params struct {
	Alpha float64 `json:"alpha"` // level
	Beta  float64 `json:"beta"`  // trend
	Gamma float64 `json:"gamma"` // season
	Phi   float64 `json:"phi"`   // what is left of the trend after a step; 1: all
}

// Model is the state of the smoothing. Its fields are exported so that it can be saved and
// restored; see [Model.Check].
type Model struct {
	Kind     Kind      `json:"kind"`
	Params   Params    `json:"params"`
	Level    float64   `json:"level"`
	Trend    float64   `json:"trend"`
	Seasonal []float64 `json:"seasonal"` // one value a phase; a single one: no season
	Phase    int       `json:"phase"`    // of the next value
	Errors   []float64 `json:"errors"`   // of the latest one-step forecasts, a ring
	Next     int       `json:"next"`     // where the next error goes

	sse float64 // of all one-step forecasts since New; what Fit compares
}

// maxErrors is how many errors a model remembers for its intervals.
const maxErrors = 128

// ErrShort is returned for a series that is too short for the season: a model
// needs two seasons, or three values if there is none.
var ErrShort = errors.New("the series is too short")

// New makes a model from a series that has a season of the given length; 1 means no season. The
// values from the second season on are smoothed with the given parameters.
func New(series []float64, season int, kind Kind, params Params) (*Model, error) {
	if season < 1 || len(series) < max(2*season, 3) {
		return nil, fmt.Errorf("%d values for a season of %d: %w", len(series), season, ErrShort)
	}
	for i, y := range series {
		if math.IsNaN(y) || math.IsInf(y, 0) || (kind == Multiplicative && y <= 0) {
			return nil, fmt.Errorf("value %d of the series is %v: not for a model of kind %s", i+1, y, kind)
		}
	}
	m := &Model{Kind: kind, Params: params, Seasonal: make([]float64, season)}
	m.begin(series)
	for _, y := range series[season:] {
		m.Update(y)
	}
	return m, m.Check()
}

// begin sets level, trend and season as of the end of the first season.
func (m *Model) begin(series []float64) {
	n := len(m.Seasonal)
	first, second := mean(series[:n]), mean(series[n:2*n])
	m.Trend = (second - first) / float64(n)
	// A season's mean stands for its middle; its end lies half a season later.
	half := float64(n-1) / 2
	m.Level = first + m.Trend*half
	seasons := len(series) / n
	for k := range seasons {
		season := series[k*n : (k+1)*n]
		middle := mean(season)
		for phase, y := range season {
			line := middle + m.Trend*(float64(phase)-half)
			m.Seasonal[phase] += m.part(y, line) / float64(seasons)
		}
	}
}

// Update adds the next value and returns how far off the forecast was.
func (m *Model) Update(y float64) (residual float64) {
	p, s := m.Params, m.Seasonal[m.Phase]
	base := m.Level + p.Phi*m.Trend
	residual = y - m.join(base, s)
	level := p.Alpha*m.part(y, s) + (1-p.Alpha)*base
	if len(m.Seasonal) > 1 {
		m.Seasonal[m.Phase] = p.Gamma*m.part(y, base) + (1-p.Gamma)*s
	}
	m.Trend = p.Beta*(level-m.Level) + (1-p.Beta)*p.Phi*m.Trend
	m.Level = level
	m.Phase = (m.Phase + 1) % len(m.Seasonal)
	m.sse += residual * residual
	if len(m.Errors) < maxErrors {
		m.Errors = append(m.Errors, residual)
	} else {
		m.Errors[m.Next] = residual
		m.Next = (m.Next + 1) % maxErrors
	}
	return residual
}

// join combines level and season; part removes one from a value.
func (m *Model) join(base, season float64) float64 {
	if m.Kind == Multiplicative {
		return base * season
	}
	return base + season
}

func (m *Model) part(y, other float64) float64 {
	if m.Kind == Additive {
		return y - other
	}
	if math.Abs(other) < tiny {
		return 1
	}
	return y / other
}

const tiny = 1e-12

// Forecast returns what the model expects h steps ahead; the next value is one
// step ahead.
func (m *Model) Forecast(h int) float64 {
	damp, phi := 0.0, 1.0
	for range h {
		phi *= m.Params.Phi
		damp += phi
	}
	return m.join(m.Level+damp*m.Trend, m.Seasonal[(m.Phase+h-1)%len(m.Seasonal)])
}

// Interval returns the range in which the value h steps ahead lies with the
// given probability, judged by the model's latest errors: their quantiles,
// widened by √h.
func (m *Model) Interval(h int, coverage float64) (low, high float64) {
	expected := m.Forecast(h)
	if len(m.Errors) == 0 {
		return expected, expected
	}
	errs := slices.Sorted(slices.Values(m.Errors))
	tail, width := (1-coverage)/2, math.Sqrt(float64(h))
	return expected + quantile(errs, tail)*width, expected + quantile(errs, 1-tail)*width
}

// Check returns an error if a restored model cannot work.
func (m *Model) Check() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if m.Kind != Additive && m.Kind != Multiplicative {
		bad("kind %q: want additive or multiplicative", m.Kind)
	}
	if len(m.Seasonal) == 0 || m.Phase < 0 || m.Phase >= len(m.Seasonal) {
		bad("phase %d of a season of %d", m.Phase, len(m.Seasonal))
	}
	if len(m.Errors) > maxErrors || m.Next < 0 || m.Next >= maxErrors || (len(m.Errors) < maxErrors && m.Next != 0) {
		bad("%d errors, the next at %d: want at most %d", len(m.Errors), m.Next, maxErrors)
	}
	p := m.Params
	for _, v := range []float64{p.Alpha, p.Beta, p.Gamma, p.Phi} {
		if !(v >= 0 && v <= 1) {
			bad("smoothing parameters %+v: want each from 0 to 1", p)
			break
		}
	}
	for _, v := range slices.Concat([]float64{m.Level, m.Trend}, m.Seasonal, m.Errors) {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			bad("the state holds %v: want finite numbers", v)
			break
		}
	}
	return errors.Join(problems...)
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// quantile of sorted values, interpolated between neighbours.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}
