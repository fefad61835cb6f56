package readmodel

import "time"

// Pool is a pool of executors of one host.
type Pool struct {
	Name      string        `json:"name" doc:"Unique in its host: the kind, and for step execution a dot and the namespace."`
	Kind      string        `json:"kind"`
	Namespace string        `json:"namespace,omitempty" doc:"Whose steps it runs."`
	Size      int           `json:"size" doc:"Executors there are, those that end their last work included."`
	Target    int           `json:"target" doc:"Executors there should be."`
	Busy      int           `json:"busy" doc:"Executors at work now."`
	Min       int           `json:"min"`
	Max       int           `json:"max"`
	Useful    int           `json:"useful,omitempty" doc:"More than this are of no use now: the plugins take no more steps at once."`
	Waiting   int           `json:"waiting" doc:"Pieces of work that the host holds and that wait for an executor."`
	Lost      int           `json:"lost,omitempty" doc:"Executors that are stuck in their work and were replaced."`
	Restarts  int           `json:"restarts,omitempty" doc:"Executors that were replaced since the host started."`
	Pace      *PoolPace     `json:"pace,omitempty" doc:"How its executors take turns; absent: they run one step at a time."`
	Paused    *Pause        `json:"paused,omitempty"`
	ChangedAt *time.Time    `json:"changed_at,omitempty" doc:"When the target changed last."`
	Algorithm string        `json:"algorithm" doc:"What decides, with its options."`
	Shadow    string        `json:"shadow,omitempty" doc:"What is asked beside, to compare."`
	Overrides bool          `json:"overrides,omitempty" doc:"The settings were changed at run time and differ from the configuration's."`
	Problem   string        `json:"problem,omitempty" doc:"What keeps the algorithm from deciding."`
	Measured  *PoolSample   `json:"measured,omitempty" doc:"The latest sample."`
	Decision  *PoolDecision `json:"decision,omitempty" doc:"The latest decision."`
	Warnings  []string      `json:"warnings,omitempty" doc:"Of a change: what the resources bear badly."`
}

// PoolPace says how the executors of a pool take turns.
type PoolPace struct {
	Batch       int    `json:"batch" doc:"Pieces of work in a turn at most."`
	PollMin     string `json:"poll_min,omitempty" doc:"Rest before the next look at queues that had work; absent: they are woken by work."`
	PollMax     string `json:"poll_max,omitempty" doc:"Longest rest between two looks at idle queues."`
	TurnTimeout string `json:"turn_timeout" doc:"After this an executor in its turn is stuck and is replaced."`
	StopTimeout string `json:"stop_timeout" doc:"How long a stopping host waits for the executors."`
}

// PoolPage lists all pools on one page.
type PoolPage struct {
	Items []Pool `json:"items"`
}

// PoolSample is what was measured in a pool over a span of time.
type PoolSample struct {
	At          time.Time `json:"at" doc:"The end of the span."`
	Seconds     float64   `json:"seconds" doc:"Its length."`
	Size        int       `json:"size"`
	Arrivals    int64     `json:"arrivals"`
	Completions int64     `json:"completions"`
	Errors      int64     `json:"errors"`
	Depth       int64     `json:"depth" doc:"Work that is ready and that nobody has taken, as much as falls to this host."`
	Oldest      float64   `json:"oldest_seconds" doc:"How long the oldest of it has waited."`
	P50         float64   `json:"p50_seconds" doc:"Half of the work took no longer from when the host had it until it ended."`
	P95         float64   `json:"p95_seconds"`
	P99         float64   `json:"p99_seconds"`
	Utilization float64   `json:"utilization" doc:"Share of the executors' time that was spent at work, 0 to 1."`
}

// PoolSamples are samples, oldest first.
type PoolSamples struct {
	Items []PoolSample `json:"items"`
}

// PoolDecision is one decision about a pool and everything that led to it.
type PoolDecision struct {
	At         time.Time   `json:"at"`
	Algorithm  string      `json:"algorithm"`
	By         string      `json:"by,omitempty" doc:"Who answered: built-in, a plugin with its generation, or nobody."`
	From       int         `json:"from" doc:"The target before."`
	To         int         `json:"to" doc:"The target from then on."`
	Reason     string      `json:"reason"`
	Advice     *PoolAdvice `json:"advice,omitempty" doc:"Absent: there was no usable answer."`
	Clamps     []PoolClamp `json:"clamps,omitempty" doc:"The rules that changed the advice, in order."`
	Current    int         `json:"current" doc:"Executors there were."`
	Min        int         `json:"min"`
	Max        int         `json:"max"`
	BudgetLeft *int        `json:"budget_left,omitempty" doc:"How many more the resources bore; absent: it was not known."`
	Samples    int         `json:"samples" doc:"How many samples the algorithm saw."`
	Measured   *PoolSample `json:"measured,omitempty" doc:"The latest of them."`
	Shadow     *PoolShadow `json:"shadow,omitempty" doc:"What the shadow would have done."`
}

// PoolAdvice is what an algorithm answered.
type PoolAdvice struct {
	Target     int     `json:"target"`
	Confidence float64 `json:"confidence"`
}

// PoolClamp is what a rule did to a size.
type PoolClamp struct {
	Rule   string `json:"rule"`
	From   int    `json:"from"`
	To     int    `json:"to"`
	Reason string `json:"reason"`
}

// PoolShadow is what would have been done by an algorithm that is only compared.
type PoolShadow struct {
	Algorithm string      `json:"algorithm"`
	By        string      `json:"by,omitempty"`
	Advice    *PoolAdvice `json:"advice,omitempty"`
	To        int         `json:"to"`
	Reason    string      `json:"reason"`
}

// PoolHistory is a list of decisions, newest first.
type PoolHistory struct {
	Items []PoolDecision `json:"items"`
}
