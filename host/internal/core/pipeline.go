package core

import (
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

const (
	claimBatch    = 500
	inputCache    = 128 << 20
	maxDependency = 256
)

// pipelineConfig is the part of the configuration that the pipeline obeys.
func (c *Core) pipelineConfig() pipeline.Config {
	e, o, q, s := c.cfg.Engine, c.cfg.Orchestration, c.cfg.PGMQ, c.cfg.System
	return pipeline.Config{
		Host:        store.HostInfo{Name: hostName(), Version: c.build.Version, Environment: c.cfg.Environment, State: "normal"},
		Environment: c.cfg.Environment,

		MaxInFlight: e.MaxInFlight, SettleBatch: e.SettleBatch, Committers: e.Committers, SubmitBatch: e.SubmitBatch,
		ClaimBatch: claimBatch, InputCache: inputCache, MaxDependency: maxDependency,

		Lease: o.Lease + o.DeadHostGrace, Heartbeat: o.Heartbeat, SelfStop: o.Lease/6 + o.DeadHostGrace,
		SweepInterval: o.SweepInterval, LostAfter: max(6*o.SweepInterval, o.Lease),
		PollMin: o.PollMin, PollMax: o.PollMax,
		InboxVT: q.VisibilityTimeout, InboxBatch: q.Batch, InboxMaxReads: q.MaxReads,
		RequestQueue: o.TaskRequestsQueue, ResultQueue: o.StepResultsQueue,
		Policy:  store.Policy{RetryAfterCap: o.RetryAfterCap, ClaimFactor: o.ClaimCapFactor},
		Payload: payload.Limits{MaxBytes: s.MaxContextBytes, MaxDepth: s.MaxDepth},
		Results: payload.Limits{MaxBytes: s.MaxResultBytes, MaxDepth: s.MaxDepth},
	}
}
