package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tasker-systems/tasker-host/sdk/health"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// checks is the service of kind health.
type checks struct {
	pluginv1.UnimplementedHealthServer
	calls
	table map[string]*watcher // immutable
}

// watcher is one slot: a checker, a reporter or both.
type watcher struct {
	name                        string
	service                     health.Service
	checking, reporting         turn
	checked, checkErrors        atomic.Int64
	reported, rejected, refused atomic.Int64 // events
}

func newChecks(p *Plugin, services map[string]health.Service) *checks {
	c := &checks{calls: newCalls(p), table: make(map[string]*watcher, len(services))}
	for name, s := range services {
		c.table[name] = &watcher{name: name, service: s, checking: newTurn(), reporting: newTurn()}
	}
	return c
}

func (c *checks) slots() []*pluginv1.Slot {
	slots := make([]*pluginv1.Slot, 0, len(c.table))
	for _, name := range slices.Sorted(maps.Keys(c.table)) {
		slot := &pluginv1.Slot{Kind: wire.KindHealth, Name: name}
		if c.table[name].service.Checker != nil {
			slot.Abilities = append(slot.Abilities, wire.AbilityCheck)
		}
		if c.table[name].service.Reporter != nil {
			slot.Abilities = append(slot.Abilities, wire.AbilityReport)
		}
		slots = append(slots, slot)
	}
	return slots
}

func (c *checks) register(r grpc.ServiceRegistrar) { pluginv1.RegisterHealthServer(r, c) }

// Check asks a checker.
func (c *checks) Check(rpc context.Context, req *pluginv1.CheckRequest) (*pluginv1.CheckResponse, error) {
	w, err := c.find(req.GetName(), "checks", func(s health.Service) bool { return s.Checker != nil })
	if err != nil {
		return nil, err
	}
	ctx, done, err := c.begin(rpc)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := w.checking.take(ctx); err != nil {
		return nil, err
	}
	defer w.checking.give()
	answer := &pluginv1.CheckResponse{}
	err = c.plugin.shielded("check", w.name, func() error {
		results, err := w.service.Checker.Check(ctx)
		if err != nil {
			return err
		}
		answer.Results, err = encodeChecks(results)
		return err
	})
	w.checked.Add(1)
	if err != nil {
		w.checkErrors.Add(1)
		return &pluginv1.CheckResponse{Error: told(err)}, nil
	}
	return answer, nil
}

// encodeChecks creates the answer. A result that cannot be used does not hide
// the others: its status becomes unknown, with a message that says why.
func encodeChecks(results []health.Check) ([]*pluginv1.CheckResult, error) {
	if len(results) > health.MaxChecks {
		return nil, fmt.Errorf("the check has %d results: want at most %d", len(results), health.MaxChecks)
	}
	seen := make(map[string]bool, len(results))
	encoded := make([]*pluginv1.CheckResult, len(results))
	for i, r := range results {
		if seen[r.Name] {
			return nil, fmt.Errorf("two results are named %.140q", r.Name)
		}
		seen[r.Name] = true
		m, err := wire.EncodeCheck(r)
		if err != nil {
			m = &pluginv1.CheckResult{
				Name:    clean(r.Name, health.MaxNameBytes),
				Status:  pluginv1.CheckResult_STATUS_UNKNOWN,
				Message: clean(wire.Unusable+err.Error(), health.MaxMessageBytes),
			}
			if m.Name == "" {
				m.Name = fmt.Sprintf("unnamed:%d", i+1)
			}
		}
		encoded[i] = m
	}
	return encoded, nil
}

// Report passes events to a reporter.
func (c *checks) Report(rpc context.Context, req *pluginv1.ReportRequest) (*pluginv1.ReportResponse, error) {
	w, err := c.find(req.GetName(), "reports", func(s health.Service) bool { return s.Reporter != nil })
	if err != nil {
		return nil, err
	}
	ctx, done, err := c.begin(rpc)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := w.reporting.take(ctx); err != nil {
		return nil, err
	}
	defer w.reporting.give()
	events := make([]health.Event, len(req.GetEvents()))
	for i, e := range req.GetEvents() {
		events[i] = wire.DecodeEvent(e)
	}
	err = c.plugin.shielded("report", w.name, func() error { return w.service.Reporter.Report(ctx, events) })
	n := int64(len(events))
	switch {
	case err == nil:
		w.reported.Add(n)
		return &pluginv1.ReportResponse{}, nil
	case errors.Is(err, health.ErrRejected):
		w.rejected.Add(n)
		return &pluginv1.ReportResponse{Error: told(err), Rejected: true}, nil
	default:
		w.refused.Add(n)
		return &pluginv1.ReportResponse{Error: told(err)}, nil
	}
}

func (c *checks) find(name, deed string, able func(health.Service) bool) (*watcher, error) {
	w, ok := c.table[name]
	if !ok || !able(w.service) {
		return nil, status.Errorf(codes.NotFound, "the plugin serves nothing named %.140q that %s", name, deed)
	}
	return w, nil
}

func (c *checks) collect(w io.Writer) {
	names := slices.Sorted(maps.Keys(c.table))
	family(w, "plugin_checks_total", "counter", "Checks asked for, by outcome.")
	for _, name := range names {
		s := c.table[name]
		failed := s.checkErrors.Load()
		fmt.Fprintf(w, "plugin_checks_total{service=%q,outcome=\"success\"} %d\n", name, s.checked.Load()-failed)
		fmt.Fprintf(w, "plugin_checks_total{service=%q,outcome=\"error\"} %d\n", name, failed)
	}
	family(w, "plugin_events_total", "counter", "Events handed over, counting every attempt, by outcome.")
	for _, name := range names {
		s := c.table[name]
		fmt.Fprintf(w, "plugin_events_total{service=%q,outcome=\"accepted\"} %d\n", name, s.reported.Load())
		fmt.Fprintf(w, "plugin_events_total{service=%q,outcome=\"rejected\"} %d\n", name, s.rejected.Load())
		fmt.Fprintf(w, "plugin_events_total{service=%q,outcome=\"failed\"} %d\n", name, s.refused.Load())
	}
}
