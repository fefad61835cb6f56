package pipeline

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// metrics holds the pipeline's metrics. Label values come from closed sets.
type metrics struct {
	created, leased, retries      prometheus.Counter
	submissionsRefused            prometheus.Counter
	outcomes, verdicts            *prometheus.CounterVec
	successes, recorded           prometheus.Counter // of outcomes and verdicts, for nearly all steps
	finished, swept, requests     *prometheus.CounterVec
	setAside, removed             *prometheus.CounterVec
	settleSeconds, createSeconds  prometheus.Histogram
	settleBatch, executionSeconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	name := func(n string) string { return "tasker_pipeline_" + n }
	counter := func(n, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name(n), Help: help})
		reg.MustRegister(c)
		return c
	}
	vec := func(n, help, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name(n), Help: help}, []string{label})
		reg.MustRegister(c)
		for _, v := range values {
			c.WithLabelValues(v)
		}
		return c
	}
	histogram := func(n, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name(n), Help: help, Buckets: buckets})
		reg.MustRegister(h)
		return h
	}
	m := &metrics{
		created:            counter("tasks_created_total", "Tasks created by this host."),
		leased:             counter("steps_leased_total", "Leases on steps granted to this host."),
		submissionsRefused: counter("submissions_refused_total", "Submissions refused because too many tasks waited to be created."),
		retries:            counter("database_retries_total", "Retried calls to the database."),
		outcomes: vec("step_outcomes_total", "Outcomes of attempts, as reported by plugins.", "outcome",
			string(vocab.OutcomeSuccess), string(vocab.OutcomeRetryable), string(vocab.OutcomePermanent), string(vocab.OutcomeReleased)),
		verdicts: vec("step_verdicts_total", "Outcomes of attempts, by the database's verdict.", "verdict",
			string(store.Recorded), string(store.AlreadyRecorded), string(store.StaleLease), string(store.UnknownStep)),
		finished: vec("tasks_finished_total", "Tasks that ended with a step settled by this host.", "state",
			string(vocab.TaskComplete), string(vocab.TaskError)),
		swept:    vec("swept_total", "Abandoned work found by the sweep, by kind.", "kind", "host", "worker", "priority", "message", "task", "lease"),
		requests: vec("requests_total", "Task requests read from the queue, by result.", "result", "created", "duplicate", "refused"),
		removed:  vec("removed_total", "Partitions, tasks and records removed by retention, by kind.", "kind", "partition", "task", "record"),
		setAside: vec("messages_set_aside_total", "Task requests and results that this host moved to the dead letters, by reason.", "reason",
			"not_an_object", "malformed", "missing_key", "unknown_template", "input_invalid", "request_id_reused", "duplicate_identity",
			"foreign_step", "unknown_step", "stale_result", "read_too_often"),
		settleSeconds:    histogram("settle_seconds", "Duration of the transaction that records outcomes.", prometheus.ExponentialBuckets(0.0005, 2, 14)),
		createSeconds:    histogram("create_seconds", "Duration of the transaction that creates tasks.", prometheus.ExponentialBuckets(0.0005, 2, 14)),
		settleBatch:      histogram("settle_batch_steps", "Outcomes recorded in one transaction.", prometheus.ExponentialBuckets(1, 2, 11)),
		executionSeconds: histogram("execution_seconds", "Duration of attempts, as measured by plugins.", prometheus.ExponentialBuckets(0.0001, 4, 12)),
	}
	m.successes, m.recorded = m.outcomes.WithLabelValues(string(vocab.OutcomeSuccess)), m.verdicts.WithLabelValues(string(store.Recorded))
	return m
}

// observe registers the gauges that read the engine's state.
func (m *metrics) observe(reg prometheus.Registerer, e *Engine) {
	gauge := func(n, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tasker_pipeline_" + n, Help: help}, f))
	}
	gauge("steps_held", "Steps that this host holds a lease on.", func() float64 { return float64(e.held.len()) })
	gauge("outcomes_waiting", "Outcomes waiting to be recorded.", func() float64 { return float64(e.outcomes.len()) })
	gauge("requests_waiting", "Tasks waiting to be created.", func() float64 { return float64(e.requests.len()) })
	gauge("lease_left_seconds", "Time until the leases of this host end if no heartbeat succeeds.", func() float64 { return e.leaseLeft().Seconds() })
}

func (m *metrics) outcome(o vocab.Outcome, execution time.Duration) {
	if o == vocab.OutcomeSuccess {
		m.successes.Inc()
	} else {
		m.outcomes.WithLabelValues(string(o)).Inc()
	}
	if execution > 0 {
		m.executionSeconds.Observe(execution.Seconds())
	}
}

// settled notes a batch of recorded outcomes.
func (m *metrics) settled(outcomes int, took time.Duration) {
	m.settleSeconds.Observe(took.Seconds())
	m.settleBatch.Observe(float64(outcomes))
}
