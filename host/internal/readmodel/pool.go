package readmodel

import "time"

// Pool is a pool of executors of one host.
type Pool struct {
	Name      string        `json:"name" doc:"Unique on its host: the kind, and for step execution also a dot and the namespace."`
	Kind      string        `json:"kind"`
	Namespace string        `json:"namespace,omitempty" doc:"Whose steps it runs."`
	Size      int           `json:"size" doc:"The current number of executors, including those finishing their last work."`
	Target    int           `json:"target" doc:"The desired number of executors."`
	Busy      int           `json:"busy" doc:"Executors at work now."`
	Min       int           `json:"min"`
	Max       int           `json:"max"`
	Useful    int           `json:"useful,omitempty" doc:"More than this would not help now: the plugins take no more steps at once."`
	Waiting   int           `json:"waiting" doc:"Pieces of work in the host that are waiting for an executor."`
	Lost      int           `json:"lost,omitempty" doc:"Executors that are stuck in their work and were replaced."`
	Restarts  int           `json:"restarts,omitempty" doc:"Executors that were replaced since the host started."`
	Pace      *PoolPace     `json:"pace,omitempty" doc:"How its executors take turns; absent if they run one step at a time."`
	Paused    *Pause        `json:"paused,omitempty"`
	ChangedAt *time.Time    `json:"changed_at,omitempty" doc:"When the target last changed."`
	Algorithm string        `json:"algorithm" doc:"The algorithm that decides, with its options."`
	Shadow    string        `json:"shadow,omitempty" doc:"The algorithm that is asked as well, for comparison."`
	Overrides bool          `json:"overrides,omitempty" doc:"The settings were changed at run time and differ from the configuration's."`
	Problem   string        `json:"problem,omitempty" doc:"What keeps the algorithm from deciding."`
	Measured  *PoolSample   `json:"measured,omitempty" doc:"The latest sample."`
	Decision  *PoolDecision `json:"decision,omitempty" doc:"The latest decision."`
	Warnings  []string      `json:"warnings,omitempty" doc:"After a change: what the resources may not suffice for."`
}

// PoolPace says how the executors of a pool take turns.
type PoolPace struct {
	Batch       int    `json:"batch" doc:"Maximum pieces of work in a turn."`
	PollMin     string `json:"poll_min,omitempty" doc:"Pause before the next look at queues that had work; absent if work wakes the executors."`
	PollMax     string `json:"poll_max,omitempty" doc:"Longest pause between two looks at idle queues."`
	TurnTimeout string `json:"turn_timeout" doc:"An executor whose turn takes longer is considered stuck and is replaced."`
	StopTimeout string `json:"stop_timeout" doc:"How long a stopping host waits for the executors."`
}

// PoolPage lists all pools on one page.
type PoolPage struct {
	Items []Pool `json:"items"`
}

// PoolSample is what was measured in a pool over a span of time.
type PoolSample struct {
	At          time.Time `json:"at" doc:"The end of the span."`
	Seconds     float64   `json:"seconds" doc:"The length of the span."`
	Size        int       `json:"size"`
	Arrivals    int64     `json:"arrivals"`
	Completions int64     `json:"completions"`
	Errors      int64     `json:"errors"`
	Depth       int64     `json:"depth" doc:"This host's share of the work that is ready and not yet taken."`
	Oldest      float64   `json:"oldest_seconds" doc:"How long the oldest of it has waited."`
	P50         float64   `json:"p50_seconds" doc:"Median time from when the host had a piece of work until it ended."`
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
	From       int         `json:"from" doc:"The previous target."`
	To         int         `json:"to" doc:"The new target."`
	Reason     string      `json:"reason"`
	Advice     *PoolAdvice `json:"advice,omitempty" doc:"Absent if there was no usable answer."`
	Clamps     []PoolClamp `json:"clamps,omitempty" doc:"The rules that changed the advice, in order."`
	Current    int         `json:"current" doc:"The number of executors at the time."`
	Min        int         `json:"min"`
	Max        int         `json:"max"`
	BudgetLeft *int        `json:"budget_left,omitempty" doc:"How many more the resources allowed; absent if unknown."`
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
