package health

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics has a label for each check that core defines, not for findings below it, whose
// names may come from plugins.
type metrics struct {
	names  []string
	status *prometheus.GaugeVec
	events *prometheus.CounterVec
	looked prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, names []string) *metrics {
	m := &metrics{
		names: names,
		status: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tasker_health_status",
			Help: "The worst result of a check: 0 healthy, 1 degraded, 2 unknown, 3 unhealthy. expected says whether the operational state explains it.",
		}, []string{"check", "expected"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_health_events_total", Help: "Changes in check results, by severity.",
		}, []string{"severity"}),
		looked: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tasker_health_look_timestamp_seconds", Help: "When the checks last ran, in seconds since 1970.",
		}),
	}
	for _, s := range Severities {
		m.events.WithLabelValues(string(s))
	}
	reg.MustRegister(m.status, m.events, m.looked)
	return m
}

func (m *metrics) note(r Report, events []Event) {
	m.looked.Set(float64(r.At.UnixMilli()) / 1e3)
	for _, e := range events {
		m.events.WithLabelValues(string(e.Severity)).Inc()
	}
	for _, name := range m.names {
		worst := map[bool]Status{false: Healthy, true: Healthy}
		for _, item := range r.Items {
			if item.Name != name && !strings.HasPrefix(item.Name, name+"/") {
				continue
			}
			if item.Status.Worse(worst[item.Expected]) {
				worst[item.Expected] = item.Status
			}
		}
		m.status.WithLabelValues(name, "false").Set(float64(worst[false].rank()))
		m.status.WithLabelValues(name, "true").Set(float64(worst[true].rank()))
	}
}
