package breaker

import "github.com/prometheus/client_golang/prometheus"

// outcomes maps outcomes to their labels.
var outcomes = map[Outcome]string{Success: "success", Failure: "failure", Ignored: "ignored"}

// metrics count by dependency and class of operations, not by queue, so that the number
// of labels stays fixed however many namespaces there are.
type metrics struct {
	calls, refused, transitions *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s *Set) *metrics {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tasker_breaker_" + name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	m := &metrics{
		calls:       vec("calls_total", "Calls that breakers let through, by outcome.", "dependency", "class", "outcome"),
		refused:     vec("refused_total", "Calls that breakers refused.", "dependency", "class"),
		transitions: vec("transitions_total", "State changes of breakers, by the new state.", "dependency", "class", "to"),
	}
	for _, l := range labels {
		m.refused.WithLabelValues(l[0], l[1])
		for _, o := range outcomes {
			m.calls.WithLabelValues(l[0], l[1], o)
		}
		for _, state := range States {
			m.transitions.WithLabelValues(l[0], l[1], string(state))
		}
	}
	reg.MustRegister(&gauge{set: s, desc: prometheus.NewDesc("tasker_breakers",
		"Breakers in each state.", []string{"dependency", "class", "state"}, nil)})
	return m
}

var labels = [][2]string{{kindDatabase, all}, {kindQueue, string(Claim)}, {kindQueue, string(Read)}, {kindQueue, string(Settle)}}

// gauge counts the breakers in each state.
type gauge struct {
	set  *Set
	desc *prometheus.Desc
}

var _ prometheus.Collector = (*gauge)(nil)

// Describe implements [prometheus.Collector].
func (g *gauge) Describe(to chan<- *prometheus.Desc) { to <- g.desc }

// Collect implements [prometheus.Collector].
func (g *gauge) Collect(to chan<- prometheus.Metric) {
	type key struct {
		labels [2]string
		state  State
	}
	n := map[key]int{}
	for _, s := range g.set.Status() {
		if id, err := Parse(s.Name); err == nil {
			n[key{[2]string{id.kind(), id.class()}, s.State}]++
		}
	}
	for _, l := range labels {
		for _, state := range States {
			to <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(n[key{l, state}]), l[0], l[1], string(state))
		}
	}
}
