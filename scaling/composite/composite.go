// Package composite combines several algorithms into one. It takes their largest advice (so
// that nobody is left short), their smallest (a ceiling), or that of the first that has any (a
// predictive algorithm once it knows enough, a simple one until then). Members that fail or
// know nothing have no say; if none has any, the pool is held.
package composite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// The ways to combine the members' advice.
const (
	Max   = "max"   // the largest target
	Min   = "min"   // the smallest target
	First = "first" // that of the first member that has one
)

// Modes lists the ways to combine advice.
var Modes = []string{Max, Min, First}

// Member is one of the combined algorithms.
type Member struct {
	Name string // unique among the members
	New  scaler.New
}

// New combines the members into one algorithm.
func New(mode string, members ...Member) (scaler.New, error) {
	var c scaling.Checks
	c.Require(slices.Contains(Modes, mode), "mode", "%q: want one of %s", mode, strings.Join(Modes, ", "))
	c.Require(len(members) > 0, "of", "there are no algorithms to combine")
	seen := map[string]bool{}
	for _, m := range members {
		c.Require(!seen[m.Name], "of", "%s is used twice: give the members different names", m.Name)
		seen[m.Name] = true
	}
	if err := c.Err(); err != nil {
		return nil, err
	}
	return func() scaler.Scaler {
		s := &composite{mode: mode}
		for _, m := range members {
			s.names = append(s.names, m.Name)
			s.members = append(s.members, m.New())
		}
		return s
	}, nil
}

type composite struct {
	mode    string
	names   []string
	members []scaler.Scaler
}

var (
	_ scaler.Scaler      = (*composite)(nil)
	_ scaler.Snapshotter = (*composite)(nil)
)

// Decide asks every member, so that those that learn can do so, and combines their advice.
func (s *composite) Decide(ctx context.Context, o scaler.Observation) (scaler.Decision, error) {
	var taken *scaler.Decision
	var failures []error
	for i, m := range s.members {
		d, err := m.Decide(ctx, o)
		if err == nil {
			err = d.Check()
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", s.names[i], err))
			continue
		}
		d.Reason = s.names[i] + ": " + d.Reason
		if taken == nil || s.better(d, *taken) {
			taken = &d
		}
	}
	if taken == nil {
		return scaler.Decision{}, errors.Join(failures...)
	}
	if len(failures) > 0 {
		taken.Reason += fmt.Sprintf(" (%d of %d algorithms failed)", len(failures), len(s.members))
	}
	if len(taken.Reason) > scaler.MaxReasonBytes {
		taken.Reason = strings.ToValidUTF8(taken.Reason[:scaler.MaxReasonBytes], "")
	}
	return *taken, nil
}

// better reports whether an advice displaces the one taken so far. A guess displaces nothing
// and is displaced by everything.
func (s *composite) better(d, taken scaler.Decision) bool {
	switch {
	case (d.Confidence > 0) != (taken.Confidence > 0):
		return d.Confidence > 0
	case s.mode == Max:
		return d.Target > taken.Target
	case s.mode == Min:
		return d.Target < taken.Target
	default:
		return false
	}
}

// Snapshot returns the members' snapshots, by name.
func (s *composite) Snapshot(ctx context.Context) ([]byte, error) {
	all := map[string][]byte{}
	for i, m := range s.members {
		learner, ok := m.(scaler.Snapshotter)
		if !ok {
			continue
		}
		snapshot, err := learner.Snapshot(ctx)
		if err != nil {
			return nil, fmt.Errorf("snapshot of %s: %w", s.names[i], err)
		}
		all[s.names[i]] = snapshot
	}
	return json.Marshal(all)
}

// Restore gives each member its own snapshot.
func (s *composite) Restore(ctx context.Context, snapshot []byte) error {
	if len(snapshot) == 0 {
		return nil
	}
	var all map[string][]byte
	if err := json.Unmarshal(snapshot, &all); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	var problems []error
	for i, m := range s.members {
		if learner, ok := m.(scaler.Snapshotter); ok && len(all[s.names[i]]) > 0 {
			if err := learner.Restore(ctx, all[s.names[i]]); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", s.names[i], err))
			}
		}
	}
	return errors.Join(problems...)
}
