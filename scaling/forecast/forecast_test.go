package forecast_test

import (
	"encoding/json"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/scaling/forecast"
)

// The table was computed by hand: a season of two, all parameters one half, an undamped
// trend.
//
//	y      10  20 | 14  24            means 15 and 19, trend (19-15)/2 = 2
//	start: level 15 + 2·½ = 16; season of phase 0: 10 - 14 = -4 and 14 - 18 = -4,
//	       of phase 1: 20 - 16 = 4 and 24 - 20 = 4
//	y=14:  forecast 16+2-4 = 14, error 0; level ½(14+4)+½·18 = 18, trend 2, season -4
//	y=24:  forecast 18+2+4 = 24, error 0; level 20, trend 2, season 4
//	y=20:  forecast 20+2-4 = 18, error 2; level ½(20+4)+½·22 = 23,
//	       trend ½·3+½·2 = 2.5, season ½(20-22)+½·(-4) = -3
//	then:  23+2.5+4 = 29.5 and 23+5-3 = 25
func TestAdditiveByHand(t *testing.T) {
	t.Parallel()
	half := forecast.Params{Alpha: 0.5, Beta: 0.5, Gamma: 0.5, Phi: 1}
	m, err := forecast.New([]float64{10, 20, 14, 24}, 2, forecast.Additive, half)
	require.NoError(t, err)
	require.Equal(t, []float64{0, 0}, m.Errors)
	require.InDelta(t, 2, m.Update(20), 1e-12)
	require.InDelta(t, 23, m.Level, 1e-12)
	require.InDelta(t, 2.5, m.Trend, 1e-12)
	require.InDelta(t, -3, m.Seasonal[0], 1e-12)
	require.InDelta(t, 29.5, m.Forecast(1), 1e-12)
	require.InDelta(t, 25, m.Forecast(2), 1e-12)
}

// The same for a season that grows with the level:
//
//	y      5 15 | 10 30               means 10 and 20, trend 5
//	start: level 10 + 5·½ = 12.5; phase 0: (5/7.5 + 10/17.5)/2, phase 1: (15/12.5 + 30/22.5)/2
func TestMultiplicativeByHand(t *testing.T) {
	t.Parallel()
	p := forecast.Params{Alpha: 0.5, Beta: 0.5, Gamma: 0.5, Phi: 0.8}
	m, err := forecast.New([]float64{5, 15, 10, 30}, 2, forecast.Multiplicative, p)
	require.NoError(t, err)
	s0, s1 := (5/7.5+10/17.5)/2, (15/12.5+30/22.5)/2
	level, trend := 12.5, 5.0
	for i, y := range []float64{10, 30} {
		s := &s0
		if i == 1 {
			s = &s1
		}
		base := level + 0.8*trend
		require.InDelta(t, y-base**s, m.Errors[i], 1e-12)
		next := 0.5*y / *s + 0.5*base
		trend = 0.5*(next-level) + 0.5*0.8*trend
		level, *s = next, 0.5*y/base+0.5**s
	}
	require.InDelta(t, level, m.Level, 1e-12)
	require.InDelta(t, (level+0.8*trend)*s0, m.Forecast(1), 1e-12)
	require.InDelta(t, (level+(0.8+0.64)*trend)*s1, m.Forecast(2), 1e-12)
}

// The monthly airline passengers of 1949 to 1960 (Box, Jenkins: Time Series Analysis, series
// G), the classic example of growing seasons.
func TestAirlinePassengers(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/airline.txt")
	require.NoError(t, err)
	var series []float64
	for _, word := range strings.Fields(string(raw)) {
		n, err := strconv.Atoi(word)
		require.NoError(t, err)
		series = append(series, float64(n))
	}
	require.Len(t, series, 144)
	known, year := series[:132], series[132:]

	length, strength := forecast.Season(known, 24)
	require.Equal(t, 12, length)
	require.Greater(t, strength, 0.7)

	m, err := forecast.Best(known, length)
	require.NoError(t, err)
	require.Equal(t, forecast.Multiplicative, m.Kind)
	off, within := 0.0, 0
	for h, y := range year {
		off += math.Abs(m.Forecast(h+1)-y) / y / 12
		if low, high := m.Interval(h+1, 0.9); low <= y && y <= high {
			within++
		}
	}
	require.Less(t, off, 0.07, "the mean error of a year ahead")
	require.GreaterOrEqual(t, within, 8, "of 12 months")

	plain, err := forecast.Fit(known, 1, forecast.Additive)
	require.NoError(t, err)
	flat := 0.0
	for h, y := range year {
		flat += math.Abs(plain.Forecast(h+1)-y) / y / 12
	}
	require.Greater(t, flat, 2*off, "without the season it forecasts far worse")
}

func seriesOf(n int) *rapid.Generator[[]float64] {
	return rapid.SliceOfN(rapid.Float64Range(1, 1000), n, n)
}

func paramsOf() *rapid.Generator[forecast.Params] {
	unit := rapid.Float64Range(0, 1)
	return rapid.Custom(func(t *rapid.T) forecast.Params {
		return forecast.Params{Alpha: unit.Draw(t, "alpha"), Beta: unit.Draw(t, "beta"), Gamma: unit.Draw(t, "gamma"), Phi: unit.Draw(t, "phi")}
	})
}

func near(t require.TestingT, want, got float64) {
	require.InDelta(t, want, got, 1e-6*max(1, math.Abs(want)))
}

func TestProperties(t *testing.T) {
	t.Parallel()
	t.Run("a constant series has a constant forecast", rapid.MakeCheck(func(t *rapid.T) {
		y, season := rapid.Float64Range(0.1, 1e6).Draw(t, "value"), rapid.IntRange(1, 6).Draw(t, "season")
		series := make([]float64, 4*season+3)
		for i := range series {
			series[i] = y
		}
		kind := rapid.SampledFrom([]forecast.Kind{forecast.Additive, forecast.Multiplicative}).Draw(t, "kind")
		m, err := forecast.New(series, season, kind, paramsOf().Draw(t, "params"))
		require.NoError(t, err)
		for h := 1; h < 20; h++ {
			near(t, y, m.Forecast(h))
			low, high := m.Interval(h, 0.9)
			near(t, y, low)
			near(t, y, high)
		}
	}))
	t.Run("a line continues", rapid.MakeCheck(func(t *rapid.T) {
		a, b := rapid.Float64Range(-100, 100).Draw(t, "a"), rapid.Float64Range(-10, 10).Draw(t, "b")
		season := rapid.IntRange(1, 5).Draw(t, "season")
		series := make([]float64, 3*season+3)
		for i := range series {
			series[i] = a + b*float64(i)
		}
		p := paramsOf().Draw(t, "params")
		p.Phi = 1
		m, err := forecast.New(series, season, forecast.Additive, p)
		require.NoError(t, err)
		for h := 1; h < 10; h++ {
			near(t, a+b*float64(len(series)+h-1), m.Forecast(h))
		}
	}))
	t.Run("shifted and scaled series have shifted and scaled forecasts", rapid.MakeCheck(func(t *rapid.T) {
		season := rapid.IntRange(1, 5).Draw(t, "season")
		series, p := seriesOf(3*season+3).Draw(t, "series"), paramsOf().Draw(t, "params")
		kind := rapid.SampledFrom([]forecast.Kind{forecast.Additive, forecast.Multiplicative}).Draw(t, "kind")
		shift, scale := 0.0, rapid.Float64Range(0.1, 10).Draw(t, "scale")
		if kind == forecast.Additive { // a shift does not preserve proportions
			shift = rapid.Float64Range(-1000, 1000).Draw(t, "shift")
		}
		other := make([]float64, len(series))
		for i, y := range series {
			other[i] = shift + scale*y
		}
		m, err := forecast.New(series, season, kind, p)
		if err != nil {
			return // a multiplicative model may diverge from a series without any shape
		}
		n, err := forecast.New(other, season, kind, p)
		require.NoError(t, err)
		for h := 1; h < 2*season+2; h++ {
			if want := m.Forecast(h); math.Abs(want) < 1e6 {
				require.InDelta(t, shift+scale*want, n.Forecast(h), 1e-5*max(1, math.Abs(scale*want)))
			}
		}
	}))
	t.Run("a season is found in noise", rapid.MakeCheck(func(t *rapid.T) {
		season := rapid.IntRange(4, 30).Draw(t, "season")
		shape := make([]float64, season)
		for i := range shape { // one hill, so that it contains no shorter season
			shape[i] = 50 * math.Sin(2*math.Pi*float64(i)/float64(season))
		}
		noise := rapid.SliceOfN(rapid.Float64Range(-8, 8), 5*season, 5*season).Draw(t, "noise")
		trend := rapid.Float64Range(-2, 2).Draw(t, "trend")
		for i := range noise {
			noise[i] += 200 + shape[i%season] + trend*float64(i)
		}
		length, _ := forecast.Season(noise, 2*season)
		require.Equal(t, season, length, "%v", noise)
	}))
}

func TestNoSeasonWhereNoneIs(t *testing.T) {
	t.Parallel()
	for name, series := range map[string][]float64{
		"constant": {5, 5, 5, 5, 5, 5, 5, 5},
		"line":     {1, 2, 3, 4, 5, 6, 7, 8},
		"short":    {1, 2, 1},
		"empty":    nil,
	} {
		length, strength := forecast.Season(series, 100)
		require.Equal(t, 1, length, name)
		require.Zero(t, strength, name)
	}
}

func TestWhatCannotBeFitted(t *testing.T) {
	t.Parallel()
	_, err := forecast.New([]float64{1, 2, 3}, 2, forecast.Additive, forecast.Params{Phi: 1})
	require.ErrorIs(t, err, forecast.ErrShort)
	_, err = forecast.New([]float64{1, 2, math.NaN()}, 1, forecast.Additive, forecast.Params{Phi: 1})
	require.ErrorContains(t, err, "value 3 of the series is NaN")
	_, err = forecast.Fit([]float64{1, 0, 3}, 1, forecast.Multiplicative)
	require.ErrorContains(t, err, "value 2 of the series is 0")
	m, err := forecast.Best([]float64{4, 0, 4, 0, 4, 0}, 2)
	require.NoError(t, err)
	require.Equal(t, forecast.Additive, m.Kind)
	_, err = forecast.New([]float64{1, 2, 3}, 1, "square", forecast.Params{Alpha: 2})
	require.ErrorContains(t, err, `kind "square"`)
	require.ErrorContains(t, err, "smoothing parameters")
}

func TestModelSurvivesItsJSON(t *testing.T) {
	t.Parallel()
	series := make([]float64, 200)
	for i := range series {
		series[i] = 20 + float64(i%7) + float64(i*i%5)
	}
	m, err := forecast.Best(series, 7)
	require.NoError(t, err)
	raw, err := json.Marshal(m)
	require.NoError(t, err)
	var back forecast.Model
	require.NoError(t, json.Unmarshal(raw, &back))
	require.NoError(t, back.Check())
	for i := range 300 {
		require.Equal(t, m.Update(series[i%200]), back.Update(series[i%200]))
		require.Equal(t, m.Forecast(i%20+1), back.Forecast(i%20+1))
	}
	back.Phase = 7
	require.ErrorContains(t, back.Check(), "phase 7 of a season of 7")
}
