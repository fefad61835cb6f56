package scaling

import (
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Rule names what changed a recommendation.
type Rule string

// The rules, in the order in which they apply.
const (
	RuleStabilization Rule = "stabilization"
	RuleDeadBand      Rule = "dead_band"
	RuleReversal      Rule = "reversal"
	RuleCooldown      Rule = "cooldown"
	RuleStep          Rule = "step"
	RuleBounds        Rule = "bounds"
	RuleBudget        Rule = "budget"
)

// Clamp records how a rule changed a size, and why.
type Clamp struct {
	Rule   Rule   `json:"rule"`
	From   int    `json:"from"`
	To     int    `json:"to"`
	Reason string `json:"reason"`
}

// Advice is the algorithm's answer.
type Advice struct {
	Target     int     `json:"target"`
	Reason     string  `json:"reason"`
	Confidence float64 `json:"confidence"`
}

// Decision says how large a pool should be, with everything that led to it.
type Decision struct {
	At        time.Time `json:"at"`
	Pool      string    `json:"pool"`
	Algorithm string    `json:"algorithm"`
	By        string    `json:"by,omitempty"` // who answered: built-in, or a plugin's process

	// What was seen: the pool, and the number of samples with the latest of them.
	Current    int            `json:"current"`
	Min        int            `json:"min"`
	Max        int            `json:"max"`
	BudgetLeft int            `json:"budget_left"` // negative: not known
	Samples    int            `json:"samples"`
	Last       *scaler.Sample `json:"last,omitempty"` // none: nothing was measured

	Advice *Advice `json:"advice,omitempty"` // none: there was no usable answer
	Clamps []Clamp `json:"clamps,omitempty"`

	From   int    `json:"from"` // the target before
	To     int    `json:"to"`   // the target from now on
	Reason string `json:"reason"`

	// Shadow is what another algorithm would have done; it has no effect.
	Shadow *Shadow `json:"shadow,omitempty"`
}

// Shadow is what an algorithm that is only asked for comparison would have done.
type Shadow struct {
	Algorithm string  `json:"algorithm"`
	By        string  `json:"by,omitempty"`
	Advice    *Advice `json:"advice,omitempty"`
	To        int     `json:"to"` // after the rules
	Reason    string  `json:"reason"`
}

// Changed reports whether the pool changes.
func (d Decision) Changed() bool { return d.From != d.To }

// Journal keeps the latest decisions of a pool. It is safe for concurrent use.
type Journal struct {
	mu      sync.Mutex
	ring    []Decision
	next    int
	changes []Decision // those that changed something, kept longer
}

// NewJournal returns a journal that keeps size decisions, and as many again that changed
// something, so that a quiet night does not displace the reasons why the pool grew in
// the evening.
func NewJournal(size int) *Journal {
	return &Journal{ring: make([]Decision, 0, size), changes: make([]Decision, 0, size)}
}

// Add records a decision.
func (j *Journal) Add(d Decision) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.ring) < cap(j.ring) {
		j.ring = append(j.ring, d)
	} else {
		j.ring[j.next] = d
		j.next = (j.next + 1) % len(j.ring)
	}
	if !d.Changed() {
		return
	}
	if len(j.changes) == cap(j.changes) {
		copy(j.changes, j.changes[1:])
		j.changes = j.changes[:len(j.changes)-1]
	}
	j.changes = append(j.changes, d)
}

// Latest returns up to n decisions, newest first.
func (j *Journal) Latest(n int) []Decision {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]Decision, 0, min(max(n, 0), len(j.ring)))
	for i := range cap(out) {
		out = append(out, j.ring[(j.next+len(j.ring)-1-i)%len(j.ring)])
	}
	return out
}

// Changes returns up to n decisions that changed the pool, newest first.
func (j *Journal) Changes(n int) []Decision {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]Decision, 0, min(max(n, 0), len(j.changes)))
	for i := range cap(out) {
		out = append(out, j.changes[len(j.changes)-1-i])
	}
	return out
}
