package pluginhost

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Why a process was started again: the closed set of the label.
const (
	restartCrash    = "crash"     // it ended, or its stream broke
	restartFailed   = "failed"    // it did not start
	restartHung     = "hung"      // too many of its calls hang
	restartNoAnswer = "no_answer" // it did not answer health checks
)

var restartReasons = []string{restartCrash, restartFailed, restartHung, restartNoAnswer}

// metrics are those of all plugins. Labels are names of configured plugins and
// words of closed sets.
type metrics struct {
	calls    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	restarts *prometheus.CounterVec
	dropped  *prometheus.CounterVec
	ignored  *prometheus.CounterVec
}

// pluginMetrics are those of one plugin, looked up once.
type pluginMetrics struct {
	outcomes map[vocab.Outcome]prometheus.Counter
	seconds  prometheus.Observer
	restarts map[string]prometheus.Counter
	dropped  prometheus.Counter
	ignored  prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_plugin_calls_total",
			Help: "Calls to plugins that have ended, by outcome.",
		}, []string{"plugin", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tasker_plugin_call_seconds",
			Help:    "How long handlers ran, by the plugin's account.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 10, 30, 60, 300},
		}, []string{"plugin"}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_plugin_restarts_total",
			Help: "Plugin processes that had to be started again, by reason.",
		}, []string{"plugin", "reason"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_plugin_log_lines_dropped_total",
			Help: "Lines that plugins printed beyond the limits.",
		}, []string{"plugin"}),
		ignored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_plugin_outcomes_ignored_total",
			Help: "Outcomes from plugins that belong to no call, or to one that was given up.",
		}, []string{"plugin"}),
	}
}

func (m *metrics) of(plugin string) *pluginMetrics {
	p := &pluginMetrics{
		outcomes: make(map[vocab.Outcome]prometheus.Counter),
		seconds:  m.seconds.WithLabelValues(plugin),
		restarts: make(map[string]prometheus.Counter),
		dropped:  m.dropped.WithLabelValues(plugin),
		ignored:  m.ignored.WithLabelValues(plugin),
	}
	for _, o := range vocab.Outcomes {
		p.outcomes[o] = m.calls.WithLabelValues(plugin, string(o))
	}
	for _, r := range restartReasons {
		p.restarts[r] = m.restarts.WithLabelValues(plugin, r)
	}
	return p
}

// outcomeCounts counts a batch, in the order of vocab.Outcomes.
type outcomeCounts [4]int

func (c *outcomeCounts) add(kind vocab.Outcome) {
	for i, o := range vocab.Outcomes {
		if o == kind {
			c[i]++
		}
	}
}

func (p *pluginMetrics) count(c *outcomeCounts) {
	for i, n := range c {
		if n > 0 {
			p.outcomes[vocab.Outcomes[i]].Add(float64(n))
		}
	}
}

// collector shows the metrics, and what is read off the plugins when asked.
type collector struct {
	host *Host
}

var (
	_ prometheus.Collector = collector{}

	stateDesc = prometheus.NewDesc("tasker_plugin_state",
		"1 for the state that the plugin is in.", []string{"plugin", "state"}, nil)
	inFlightDesc = prometheus.NewDesc("tasker_plugin_in_flight",
		"Calls to the plugin that have not ended, those that wait for room included.", []string{"plugin"}, nil)
	generationDesc = prometheus.NewDesc("tasker_plugin_generation",
		"The number of the process that serves, 0 if none does.", []string{"plugin"}, nil)
)

// Describe names the metrics.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.host.metrics.collectors() {
		m.Describe(ch)
	}
	ch <- stateDesc
	ch <- inFlightDesc
	ch <- generationDesc
}

// Collect reads them.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c.host.metrics.collectors() {
		m.Collect(ch)
	}
	for _, s := range c.host.Status() {
		for _, state := range states {
			value := 0.0
			if s.State == state {
				value = 1
			}
			ch <- prometheus.MustNewConstMetric(stateDesc, prometheus.GaugeValue, value, s.Name, string(state))
		}
		ch <- prometheus.MustNewConstMetric(inFlightDesc, prometheus.GaugeValue, float64(s.InFlight), s.Name)
		ch <- prometheus.MustNewConstMetric(generationDesc, prometheus.GaugeValue, float64(s.Generation), s.Name)
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.calls, m.seconds, m.restarts, m.dropped, m.ignored}
}
