package forecast

import (
	"math"
	"slices"
)

// The grid that Fit searches. The trend is damped a little: a load never grows forever, and a
// forecast that runs away is worse than one that lags.
var (
	alphas = []float64{0.05, 0.1, 0.25, 0.5, 0.8}
	betas  = []float64{0, 0.02, 0.1}
	gammas = []float64{0.05, 0.2, 0.5, 0.9}
	phis   = []float64{0.9, 0.98}
)

// Fit returns the model with the best one-step forecasts of the series, by the sum of their
// squared errors, among a fixed grid of parameters.
func Fit(series []float64, season int, kind Kind) (*Model, error) {
	seasonal := gammas
	if season == 1 {
		seasonal = gammas[:1]
	}
	var best *Model
	for _, alpha := range alphas {
		for _, beta := range betas {
			for _, gamma := range seasonal {
				for _, phi := range phis {
					m, err := New(series, season, kind, Params{Alpha: alpha, Beta: beta, Gamma: gamma, Phi: phi})
					if err != nil {
						return nil, err
					}
					if best == nil || m.sse < best.sse {
						best = m
					}
				}
			}
		}
	}
	return best, nil
}

// Best returns the better of an additive and a multiplicative model. A series with values at or
// below zero gets an additive one.
func Best(series []float64, season int) (*Model, error) {
	additive, err := Fit(series, season, Additive)
	if err != nil || season == 1 || slices.Min(series) <= 0 {
		return additive, err
	}
	multiplicative, err := Fit(series, season, Multiplicative)
	if err != nil || additive.sse <= multiplicative.sse {
		return additive, nil // only the other kind does not fit
	}
	return multiplicative, nil
}

// minStrength is the minimum autocorrelation of a season.
const minStrength = 0.3

// Season returns the length of a series' season, from 2 to most, and the autocorrelation of the
// series at that lag, or 1 and 0 if no season is apparent. It needs two full seasons. It
// removes a linear trend first. Among lags about as strong as the strongest it takes the
// shortest: a day, not a week of equal days.
func Season(series []float64, most int) (length int, strength float64) {
	most = min(most, len(series)/2)
	if most < 2 {
		return 1, 0
	}
	flat := detrended(series)
	total := 0.0
	for _, v := range flat {
		total += v * v
	}
	if scale := mean(absolute(series)); total <= tiny*scale*scale*float64(len(series)) {
		return 1, 0 // a line has no season
	}
	r := make([]float64, most+2)
	for lag := 1; lag < len(r) && lag < len(flat); lag++ {
		r[lag] = autocorrelation(flat, lag)
	}
	strongest := 0.0
	for lag := 2; lag <= most; lag++ {
		if peak(r, lag) {
			strongest = max(strongest, r[lag])
		}
	}
	if strongest < minStrength {
		return 1, 0
	}
	for lag := 2; lag <= most; lag++ {
		if peak(r, lag) && r[lag] >= 0.9*strongest {
			return lag, r[lag]
		}
	}
	return 1, 0
}

func peak(r []float64, lag int) bool { return r[lag] >= r[lag-1] && r[lag] >= r[lag+1] && r[lag] > 0 }

// autocorrelation of the overlapping parts, so that long lags have no disadvantage from their
// shorter overlap.
func autocorrelation(v []float64, lag int) float64 {
	var ab, aa, bb float64
	for i := lag; i < len(v); i++ {
		ab += v[i] * v[i-lag]
		aa += v[i] * v[i]
		bb += v[i-lag] * v[i-lag]
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / math.Sqrt(aa*bb)
}

// detrended subtracts the least-squares line from a series.
func detrended(series []float64) []float64 {
	middle, average := float64(len(series)-1)/2, mean(series)
	var sxy, sxx float64
	for i, y := range series {
		x := float64(i) - middle
		sxy += x * (y - average)
		sxx += x * x
	}
	flat := make([]float64, len(series))
	for i, y := range series {
		flat[i] = y - average - sxy/sxx*(float64(i)-middle)
	}
	return flat
}

func absolute(values []float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = math.Abs(v)
	}
	return out
}
