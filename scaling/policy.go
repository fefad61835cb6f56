package scaling

import "time"

// Policy limits what an algorithm's advice may do to a pool. The bounds Min and Max themselves
// come with each observation.
type Policy struct {
	StepUp        int      `json:"step_up" doc:"most executors added at once; 0: no limit"`
	StepDown      int      `json:"step_down" doc:"most executors removed at once; 0: no limit"`
	CooldownUp    Duration `json:"cooldown_up" doc:"how long not to grow after a change"`
	CooldownDown  Duration `json:"cooldown_down" doc:"how long not to shrink after a change"`
	DeadBand      float64  `json:"dead_band" doc:"differences up to this share of the size are ignored"`
	Stabilization Duration `json:"stabilization" doc:"shrink no further than the largest advice of this window"`
	Reversal      Duration `json:"reversal" doc:"turn from growing to shrinking or back at most once in this window"`
	Stale         Duration `json:"stale" doc:"no decision is made if the latest sample is older than this"`
	MinConfidence float64  `json:"min_confidence" doc:"advice with less confidence than this is ignored"`
}

// DefaultPolicy grows quickly and shrinks slowly: too many executors cost a
// little, too few cost the users' time.
func DefaultPolicy() Policy {
	return Policy{
		StepDown:   2,
		CooldownUp: Duration(15 * time.Second), CooldownDown: Duration(time.Minute),
		DeadBand: 0.1, Stabilization: Duration(5 * time.Minute), Reversal: Duration(time.Minute),
		Stale: Duration(2 * time.Minute),
	}
}

// Check returns everything that is wrong with the policy.
func (p Policy) Check() error {
	var c Checks
	c.Require(p.StepUp >= 0, "step_up", "%d: want 0 or more", p.StepUp)
	c.Require(p.StepDown >= 0, "step_down", "%d: want 0 or more", p.StepDown)
	c.Time("cooldown_up", p.CooldownUp, 0, time.Hour)
	c.Time("cooldown_down", p.CooldownDown, 0, 24*time.Hour)
	c.Between("dead_band", p.DeadBand, 0, 0.5)
	c.Time("stabilization", p.Stabilization, 0, 24*time.Hour)
	c.Time("reversal", p.Reversal, 0, time.Hour)
	c.Time("stale", p.Stale, time.Millisecond, time.Hour)
	c.Between("min_confidence", p.MinConfidence, 0, 1)
	return c.Err()
}
