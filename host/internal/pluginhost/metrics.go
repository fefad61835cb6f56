package pluginhost

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Why a process was restarted: the closed set of label values.
const (
	restartCrash    = "crash"     // it ended, or its stream broke
	restartFailed   = "failed"    // it did not start
	restartHung     = "hung"      // too many of its calls hang
	restartNoAnswer = "no_answer" // it did not answer health checks
	restartMemory   = "memory"    // it exceeded its memory limit
)

var restartReasons = []string{restartCrash, restartFailed, restartHung, restartNoAnswer, restartMemory}

// metrics holds the metrics of all plugins. Labels are names of configured plugins and
// words from closed sets.
type metrics struct {
	calls    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	restarts *prometheus.CounterVec
	dropped  *prometheus.CounterVec
	ignored  *prometheus.CounterVec

	failovers *prometheus.CounterVec
	differed  *prometheus.CounterVec
	swaps     *prometheus.CounterVec
	rollbacks *prometheus.CounterVec
	phases    *prometheus.HistogramVec
}

// pluginMetrics holds the metrics of one plugin, looked up once.
type pluginMetrics struct {
	outcomes map[vocab.Outcome]prometheus.Counter
	seconds  prometheus.Observer
	restarts map[string]prometheus.Counter
	dropped  prometheus.Counter
	ignored  prometheus.Counter

	failovers prometheus.Counter
	differed  prometheus.Counter
	swaps     map[string]prometheus.Counter
	rollbacks map[string]prometheus.Counter
	starts    prometheus.Observer
	drains    prometheus.Observer
}

func newMetrics() *metrics {
	return &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_plugin_calls_total",
			Help: "Steps given to handlers that have ended, by outcome. Calls to scaling and health plugins are in tasker_scaling_decisions_total and tasker_health_reports_total.",
		}, []string{"plugin", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tasker_plugin_call_seconds",
			Help:    "How long handlers ran, as measured by the plugin.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 10, 30, 60, 300},
		}, []string{"plugin"}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_plugin_restarts_total",
			Help: "Restarts of plugin processes, by reason.",
		}, []string{"plugin", "reason"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_plugin_log_lines_dropped_total",
			Help: "Lines printed by plugins beyond the limits.",
		}, []string{"plugin"}),
		ignored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_plugin_outcomes_ignored_total",
			Help: "Outcomes from plugins that belong to no call, or to an abandoned one.",
		}, []string{"plugin"}),
		failovers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_plugin_failovers_total",
			Help: "Times that a warm generation took over from one that had ended.",
		}, []string{"plugin"}),
		differed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_plugin_shadow_differences_total",
			Help: "Answers of shadows that differ from those of the serving generation.",
		}, []string{"plugin"}),
		swaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_plugin_swaps_total",
			Help: "Plugin changes that were started, by result.",
		}, []string{"plugin", "result"}),
		rollbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasker_plugin_rollbacks_total",
			Help: "Plugin changes that were rolled back, by cause.",
		}, []string{"plugin", "cause"}),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tasker_plugin_swap_seconds",
			Help:    "How long the phases of a swap took: from start to readiness, and until the calls of the old process had ended.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 5, 10, 30, 60},
		}, []string{"plugin", "phase"}),
	}
}

// The closed sets of the labels of swaps.
var (
	swapResults    = []string{"done", "failed", "refused"}
	rollbackCauses = []string{causeOperator, causeCrash, causeErrors, causeLatency, causeHealth}
)

// Why a change was reverted.
const (
	causeOperator = "operator"
	causeCrash    = "crash"
	causeErrors   = "errors"
	causeLatency  = "latency"
	causeHealth   = "health"
)

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
	p.differed = m.differed.WithLabelValues(plugin)
	p.failovers = m.failovers.WithLabelValues(plugin)
	p.starts, p.drains = m.phases.WithLabelValues(plugin, "start"), m.phases.WithLabelValues(plugin, "drain")
	p.swaps, p.rollbacks = make(map[string]prometheus.Counter), make(map[string]prometheus.Counter)
	for _, r := range swapResults {
		p.swaps[r] = m.swaps.WithLabelValues(plugin, r)
	}
	for _, c := range rollbackCauses {
		p.rollbacks[c] = m.rollbacks.WithLabelValues(plugin, c)
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

// collector exports the metrics, including those read from the plugins on demand.
type collector struct {
	host *Host
}

var (
	_ prometheus.Collector = collector{}

	stateDesc = prometheus.NewDesc("tasker_plugin_state",
		"1 for the state that the plugin is in.", []string{"plugin", "state"}, nil)
	inFlightDesc = prometheus.NewDesc("tasker_plugin_in_flight",
		"Calls to the plugin that have not ended, including those waiting for room.", []string{"plugin"}, nil)
	generationDesc = prometheus.NewDesc("tasker_plugin_generation",
		"Number of the generation that serves, 0 if none does.", []string{"plugin"}, nil)
	phaseDesc = prometheus.NewDesc("tasker_plugin_generation_phase",
		"1 for the phase of each generation that has a process.", []string{"plugin", "generation", "phase"}, nil)
	memoryDesc = prometheus.NewDesc("tasker_plugin_resident_bytes",
		"Resident memory of a generation's process.", []string{"plugin", "generation"}, nil)
	cpuDesc = prometheus.NewDesc("tasker_plugin_cpu_seconds_total",
		"Processor time of all processes of the plugin since the host started.", []string{"plugin"}, nil)
	weightDesc = prometheus.NewDesc("tasker_plugin_canary_percent",
		"Percentage of tasks that the plugin's canary gets, 0 if there is none.", []string{"plugin"}, nil)
	quarantineDesc = prometheus.NewDesc("tasker_plugin_quarantined",
		"Quarantined executables: the plugin's slot does not run them until they are released.", []string{"plugin"}, nil)
	breakerDesc = prometheus.NewDesc("tasker_plugin_breaker_open",
		"1 while calls to the serving generation are refused because too many have failed.", []string{"plugin"}, nil)
	unwrittenDesc = prometheus.NewDesc("tasker_plugin_events_lost_total",
		"Plugin events that could not be recorded because the database was unavailable for too long.", nil, nil)
)

// Describe names the metrics.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.host.metrics.collectors() {
		m.Describe(ch)
	}
	ch <- stateDesc
	ch <- inFlightDesc
	for _, d := range []*prometheus.Desc{generationDesc, phaseDesc, memoryDesc, cpuDesc, weightDesc, quarantineDesc, breakerDesc, unwrittenDesc} {
		ch <- d
	}
}

// Collect collects them.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c.host.metrics.collectors() {
		m.Collect(ch)
	}
	for _, s := range c.host.list() {
		collectSlot(ch, s.label, s.explain(), s.shut())
		ch <- prometheus.MustNewConstMetric(cpuDesc, prometheus.CounterValue, s.cpu().Seconds(), s.label)
	}
	ch <- prometheus.MustNewConstMetric(unwrittenDesc, prometheus.CounterValue, float64(c.host.lost()))
}

func collectSlot(ch chan<- prometheus.Metric, label string, e Explanation, shut bool) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, append([]string{label}, labels...)...)
	}
	truth := map[bool]float64{true: 1}
	for _, state := range states {
		gauge(stateDesc, truth[e.State == state], string(state))
	}
	gauge(inFlightDesc, float64(e.InFlight))
	gauge(generationDesc, float64(e.Generation))
	gauge(quarantineDesc, float64(len(e.Quarantined)))
	gauge(breakerDesc, truth[shut])
	weight := 0
	for _, g := range e.Generations {
		if !g.Phase.Running() {
			continue // a label that is no longer needed
		}
		number := strconv.FormatUint(g.Number, 10)
		gauge(phaseDesc, 1, number, string(g.Phase))
		if bytes, ok := process.Resident(g.PID); ok {
			gauge(memoryDesc, float64(bytes), number)
		}
		weight += g.Weight
	}
	gauge(weightDesc, float64(weight))
}

// cpu returns the processor time of all processes of the slot so far.
func (s *slot) cpu() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.used
	for _, g := range s.shown {
		if g.proc != nil && !g.phase.Over() {
			used, _ := process.CPU(g.proc.Pid())
			sum += used
		}
	}
	s.usedAtMost = max(s.usedAtMost, sum) // between the end of a process and the accounting for it
	return s.usedAtMost
}

// shut reports whether calls to the serving generation are refused.
func (s *slot) shut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.primary != nil && s.primary.breaker.State() == gobreaker.StateOpen
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.calls, m.seconds, m.restarts, m.dropped, m.ignored, m.failovers, m.differed, m.swaps, m.rollbacks, m.phases}
}

// forget drops the metrics of a plugin that was removed.
func (m *metrics) forget(plugin string) {
	labels := prometheus.Labels{"plugin": plugin}
	for _, v := range []interface{ DeletePartialMatch(prometheus.Labels) int }{
		m.calls, m.seconds, m.restarts, m.dropped, m.ignored, m.failovers, m.differed, m.swaps, m.rollbacks, m.phases,
	} {
		v.DeletePartialMatch(labels)
	}
}
