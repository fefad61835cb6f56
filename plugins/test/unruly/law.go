package main

import (
	"context"
	"encoding/json"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/health"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// counter is a scaler that counts its decisions.
type counter struct{ n, plus int }

func (c *counter) Decide(context.Context, scaler.Observation) (scaler.Decision, error) {
	c.n++
	return scaler.Decision{Target: c.n + c.plus, Reason: "it counts", Confidence: 1}, nil
}

func (c *counter) Snapshot(context.Context) ([]byte, error) { return json.Marshal(c.n) }

func (c *counter) Restore(_ context.Context, snapshot []byte) error {
	return json.Unmarshal(snapshot, &c.n)
}

// serveLaw serves all kinds in one process.
func serveLaw(count scaler.New) {
	disk := health.CheckFunc(func(context.Context) ([]health.Check, error) {
		return []health.Check{{Name: "disk", Status: health.Degraded, Message: "nearly full"}}, nil
	})
	report := health.ReportFunc(func(context.Context, []health.Event) error { return nil })
	sdk.Serve(
		sdk.Handlers("law", "1.0.0", map[string]handler.Handler{"law.echo": handler.Func(echo)}),
		sdk.Scaling("law", "1.0.0", map[string]scaler.New{"law.count": count}),
		sdk.Health("law", "1.0.0", map[string]health.Service{"law.disk": {Checker: disk, Reporter: report}}),
	)
}
