package events

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	streams prometheus.Gauge
	read    prometheus.Counter
	cutOff  prometheus.Counter
	lag     prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tasker_event_streams", Help: "Clients that follow the system's events.",
		}),
		read: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tasker_events_read_total", Help: "Events read for clients that follow them; none are read without such clients.",
		}),
		cutOff: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tasker_event_streams_cut_off_total", Help: "Clients cut off because they read events too slowly.",
		}),
		lag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tasker_events_horizon_age_seconds",
			Help: "How far back the last read of events began, including the slack for slow statements; it grows while a transaction on the server stays open.",
		}),
	}
	reg.MustRegister(m.streams, m.read, m.cutOff, m.lag)
	return m
}
