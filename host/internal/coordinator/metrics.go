package coordinator

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// metrics are labelled with the kind of a pool, never with a namespace: pools of one kind
// are summed.
type metrics struct {
	size, busy, depth  *prometheus.GaugeVec
	lost, paused       *prometheus.GaugeVec
	replaced           *prometheus.CounterVec
	decisions, clamps  *prometheus.CounterVec
	seconds            prometheus.Histogram
	late, differed     prometheus.Counter
	items, failedItems *prometheus.CounterVec

	seen map[string]map[string]figures // of the pools of a kind, by name; guarded by Coordinator.mu
}

type figures struct {
	size, busy, depth, lost, paused float64
	restarts                        int
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tasker_pool_" + name, Help: help}, []string{"kind"})
		reg.MustRegister(g)
		return g
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	m := &metrics{
		size:        gauge("executors", "Executors in pools, by kind of pool."),
		busy:        gauge("executors_busy", "Busy executors, averaged over the last interval."),
		depth:       gauge("backlog", "Ready work waiting for an executor of this host: its share of the database's, and what is in the host."),
		lost:        gauge("executors_stuck", "Executors that still hang in a turn after being replaced."),
		paused:      gauge("paused", "Paused pools, whose executors start nothing, by kind of pool."),
		replaced:    vec("tasker_pool_executors_replaced_total", "Stuck executors that were replaced.", "kind"),
		items:       vec("tasker_pool_items_total", "Pieces of work that ended.", "kind"),
		failedItems: vec("tasker_pool_failed_items_total", "Pieces of work that ended in an error.", "kind"),
		decisions:   vec("tasker_scaling_decisions_total", "Decisions about pools: grow, shrink, keep, or held for lack of usable advice.", "kind", "outcome"),
		clamps:      vec("tasker_scaling_clamps_total", "Times that a rule changed an algorithm's advice.", "rule"),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tasker_scaling_decision_seconds", Help: "Duration of decisions, including the algorithm's answer.", Buckets: prometheus.ExponentialBuckets(0.00005, 4, 10),
		}),
		late:     prometheus.NewCounter(prometheus.CounterOpts{Name: "tasker_scaling_skipped_total", Help: "Decisions skipped because the previous one was still pending."}),
		differed: prometheus.NewCounter(prometheus.CounterOpts{Name: "tasker_scaling_shadow_differed_total", Help: "Decisions that a shadow would have made differently."}),
		seen:     map[string]map[string]figures{},
	}
	reg.MustRegister(m.seconds, m.late, m.differed)
	for _, r := range []scaling.Rule{
		scaling.RuleStabilization, scaling.RuleDeadBand, scaling.RuleReversal, scaling.RuleCooldown, scaling.RuleStep, scaling.RuleBounds, scaling.RuleBudget,
	} {
		m.clamps.WithLabelValues(string(r))
	}
	return m
}

func (m *metrics) sample(p *managed, s scaler.Sample) {
	if m.seen[p.Kind] == nil {
		m.seen[p.Kind] = map[string]figures{}
	}
	state, before := p.State(), m.seen[p.Kind][p.name]
	now := figures{
		size: float64(s.Size), busy: float64(s.Size) * s.Utilization, depth: float64(s.QueueDepth), lost: float64(state.Lost), restarts: state.Restarts,
	}
	if state.Paused {
		now.paused = 1
	}
	m.seen[p.Kind][p.name] = now
	var all figures
	for _, f := range m.seen[p.Kind] {
		all.size, all.busy, all.depth = all.size+f.size, all.busy+f.busy, all.depth+f.depth
		all.lost, all.paused = all.lost+f.lost, all.paused+f.paused
	}
	m.lost.WithLabelValues(p.Kind).Set(all.lost)
	m.paused.WithLabelValues(p.Kind).Set(all.paused)
	m.replaced.WithLabelValues(p.Kind).Add(float64(max(now.restarts-before.restarts, 0)))
	m.size.WithLabelValues(p.Kind).Set(all.size)
	m.busy.WithLabelValues(p.Kind).Set(all.busy)
	m.depth.WithLabelValues(p.Kind).Set(all.depth)
	m.items.WithLabelValues(p.Kind).Add(float64(s.Completions))
	m.failedItems.WithLabelValues(p.Kind).Add(float64(s.Errors))
}

func (m *metrics) decided(p *managed, d scaling.Decision) {
	outcome := "keep"
	switch {
	case d.Advice == nil:
		outcome = "held"
	case d.To > d.From:
		outcome = "grow"
	case d.To < d.From:
		outcome = "shrink"
	}
	m.decisions.WithLabelValues(p.Kind, outcome).Inc()
	for _, c := range d.Clamps {
		m.clamps.WithLabelValues(string(c.Rule)).Inc()
	}
	if d.Shadow != nil && d.Shadow.To != d.To {
		m.differed.Inc()
	}
}
