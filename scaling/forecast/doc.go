// Package forecast implements exponential smoothing with trend and season (Holt and Winters)
// for series that grow by one value at a time: fitting, updating, forecasts with intervals, and
// finding the season's length.
//
// The formulas are those of Hyndman and Athanasopoulos, Forecasting: Principles and Practice
// (3rd edition), sections 8.2 to 8.4, with a damped trend:
//
//	              additive                            multiplicative
//	level    l =  α(y - s₋ₘ) + (1-α)(l₋₁ + φb₋₁)      α y/s₋ₘ + (1-α)(l₋₁ + φb₋₁)
//	trend    b =  β(l - l₋₁) + (1-β)φb₋₁              the same
//	season   s =  γ(y - l₋₁ - φb₋₁) + (1-γ)s₋ₘ        γ y/(l₋₁ + φb₋₁) + (1-γ)s₋ₘ
//	forecast ŷ =  l + (φ + … + φʰ)b + s               (l + (φ + … + φʰ)b) s
//
// With φ = 1 the trend never ends. The first season gives the first level, all seasons together
// the first shape.
//
// Intervals are not derived from a distribution: they are quantiles of the recent errors of the
// model's own one-step forecasts, widened by √h for h steps.
//
// The package has no clock, no randomness and no I/O. A Model belongs to one goroutine; it
// marshals to JSON and back.
package forecast
