// Package predictive sizes a pool for the load that is expected when a change made now has
// taken effect, instead of for past load.
//
// It counts arrivals in buckets of time, finds out whether they have a season (a day, an hour,
// whatever repeats) and forecasts them by exponential smoothing, see scaling/forecast. It
// provides for the largest load within the lead time, taken from the upper end of the
// forecast's interval, and never for less than scaling by rate would provide now:
//
//	n = (max(λ now, upper end of λ within lead) + depth/drain) · S / target
//
// with S the seconds an executor spends on a piece of work. Until the algorithm has seen
// enough, the forecast is not used.
//
// What it has learned, the arrivals of the last seasons and the model, survives a swap of the
// plugin through Snapshot and Restore.
package predictive
