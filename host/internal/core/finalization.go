package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/finalizer"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// stateFinalizer finalizes tasks when the operational state allows it.
type stateFinalizer struct {
	*finalizer.Finalizer
	state *opstate.Machine
}

// errNotInState is returned for work that the host does not do in its current state.
var errNotInState = errors.New("not in this operational state")

// Finalize finishes a task, see [finalizer.Finalizer.Finalize].
func (f stateFinalizer) Finalize(ctx context.Context, task vocab.UUID) (vocab.TaskState, error) {
	if state := f.state.State(); !state.Finalizes() {
		return "", fmt.Errorf("finalize task %s: %w: %s", task, errNotInState, state)
	}
	return f.Finalizer.Finalize(ctx, task)
}

// The outcomes of a task whose claim for finalization was granted, besides the states in
// which it can end.
const (
	finalizationWaits  = "waiting"    // something is still in progress in it
	finalizationLost   = "claim_lost" // the claim expired or was taken before the decision was applied
	finalizationFailed = "failed"     // a call failed
)

// finalizationMetrics counts what the finalizer does.
type finalizationMetrics struct {
	claimSeconds, releaseSeconds          prometheus.Histogram
	claims, granted, refused              prometheus.Counter
	releases, releasedOwn, releasedNotOwn prometheus.Counter
	refusals, results                     *prometheus.CounterVec
}

var _ finalizer.Observer = (*finalizationMetrics)(nil)

func newFinalizationMetrics(reg prometheus.Registerer) *finalizationMetrics {
	name := func(n string) string { return "tasker_finalization_" + n }
	counter := func(n, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name(n), Help: help})
		reg.MustRegister(c)
		return c
	}
	vec := func(n, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name(n), Help: help}, []string{label})
		reg.MustRegister(c)
		return c
	}
	seconds := func(n, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name(n), Help: help, Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)})
		reg.MustRegister(h)
		return h
	}
	m := &finalizationMetrics{
		claimSeconds:   seconds("claim_duration_seconds", "Duration of calls that claim a task for finalization."),
		claims:         counter("claim_attempts_total", "Attempts to claim a task for finalization. Those neither granted nor refused failed."),
		granted:        counter("claim_success_total", "Granted claims for finalization."),
		refused:        counter("claim_contention_total", "Refused claims for finalization."),
		refusals:       vec("claim_contention_by_reason_total", "Refused claims for finalization, by reason.", "reason"),
		releaseSeconds: seconds("claim_release_duration_seconds", "Duration of calls that release a claim for finalization."),
		releases:       counter("claim_release_attempts_total", "Attempts to release a claim for finalization. Those neither successful nor not owned failed."),
		releasedOwn:    counter("claim_release_success_total", "Released claims for finalization; claims of tasks that ended need no release."),
		releasedNotOwn: counter("claim_release_not_owned_total", "Claims for finalization that were no longer held when they should have been released."),
		results:        vec("results_total", "Tasks whose claim was granted, by result: the task ended, it waits for steps that can still move, the claim was lost, or a call failed.", "result"),
	}
	for _, r := range finalizer.Refusals {
		m.refusals.WithLabelValues(string(r))
	}
	for _, r := range []string{string(vocab.TaskComplete), string(vocab.TaskError), finalizationWaits, finalizationLost, finalizationFailed} {
		m.results.WithLabelValues(r)
	}
	return m
}

// Claimed implements [finalizer.Observer].
func (m *finalizationMetrics) Claimed(c finalizer.Claim, err error, took time.Duration) {
	m.claims.Inc()
	m.claimSeconds.Observe(took.Seconds())
	switch {
	case err != nil:
	case c.Claimed:
		m.granted.Inc()
	default:
		m.refused.Inc()
		m.refusals.WithLabelValues(string(c.Refusal())).Inc()
	}
}

// Released implements [finalizer.Observer].
func (m *finalizationMetrics) Released(released bool, err error, took time.Duration) {
	m.releases.Inc()
	m.releaseSeconds.Observe(took.Seconds())
	switch {
	case err != nil:
	case released:
		m.releasedOwn.Inc()
	default:
		m.releasedNotOwn.Inc()
	}
}

// Concluded implements [finalizer.Observer].
func (m *finalizationMetrics) Concluded(state vocab.TaskState, err error) {
	result := string(state)
	switch {
	case errors.Is(err, finalizer.ErrClaimLost):
		result = finalizationLost
	case err != nil:
		result = finalizationFailed
	case state.Active():
		result = finalizationWaits
	}
	m.results.WithLabelValues(result).Inc()
}
