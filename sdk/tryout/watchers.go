package tryout

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tasker-systems/tasker-host/sdk/health"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// watchers checks health plugins: checkers and reporters.
func (s *suite) watchers(ctx context.Context) {
	slots := s.slots(wire.KindHealth)
	if len(slots) == 0 {
		return
	}
	s.check(ctx, "health: an unknown name", s.withInstance(func(ctx context.Context, i *Instance) error {
		_, err := i.Health.Check(ctx, &pluginv1.CheckRequest{Name: nobody})
		if status.Code(err) != codes.NotFound {
			return fmt.Errorf("Check ends with code %s: want NotFound", status.Code(err))
		}
		_, err = i.Health.Report(ctx, &pluginv1.ReportRequest{Name: nobody})
		if status.Code(err) != codes.NotFound {
			return fmt.Errorf("Report ends with code %s: want NotFound", status.Code(err))
		}
		return nil
	}))
	for _, slot := range slots {
		name := slot.GetName()
		if can(slot, wire.AbilityCheck) {
			s.check(ctx, "health "+name+": checks", s.withInstance(func(ctx context.Context, i *Instance) error {
				return checksTwice(ctx, i, name)
			}))
			s.check(ctx, "health "+name+": a cancelled call does no harm", s.withInstance(func(ctx context.Context, i *Instance) error {
				return impatient(ctx, i, name)
			}))
		}
		if can(slot, wire.AbilityReport) {
			s.check(ctx, "health "+name+": accepts an empty report", s.withInstance(func(ctx context.Context, i *Instance) error {
				return i.Report(ctx, name)
			}))
			s.check(ctx, "health "+name+": reports", s.withInstance(s.reports(name)))
		}
	}
}

// checksTwice checks that two runs give usable results with the same names.
func checksTwice(ctx context.Context, i *Instance, name string) error {
	var before []string
	for turn := range 2 {
		results, err := i.CheckHealth(ctx, name)
		if err != nil {
			return err
		}
		if len(results) == 0 {
			return fmt.Errorf("check %s: it has no results: if all is well, a check must say so", name)
		}
		names := namesOf(results)
		if turn > 0 && !slices.Equal(names, before) {
			return fmt.Errorf("check %s: the results were named %q and are now named %q: the host identifies a check by its name", name, before, names)
		}
		before = names
	}
	return nil
}

func namesOf(results []health.Check) []string {
	names := map[string]bool{}
	for _, r := range results {
		names[r.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// impatient gives one run no time at all, and checks that the next one works.
func impatient(ctx context.Context, i *Instance, name string) error {
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	_, _ = i.Health.Check(short, &pluginv1.CheckRequest{Name: name}) // its result does not matter
	cancel()
	_, err := i.CheckHealth(ctx, name)
	return err
}

// reports delivers an event of a kind that the reporter does not know, twice, because
// events are delivered at least once.
func (s *suite) reports(name string) func(context.Context, *Instance) error {
	return func(ctx context.Context, i *Instance) error {
		if !s.cfg.Report {
			return skipped("no event is reported unless you ask for it, because it might reach people")
		}
		event := Event()
		for range 2 {
			if err := i.Report(ctx, name, event); err != nil {
				return err
			}
		}
		return nil
	}
}
