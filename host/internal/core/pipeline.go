package core

import (
	"time"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pipeline"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

const (
	inputCache    = 128 << 20
	stepMemory    = 256 << 20 // of inputs and results in progress
	memoryShare   = 16 << 20  // of which each namespace always gets this much
	maxDependency = 256

	restBeat = 20 * time.Second
)

// pipelineConfig returns the part of a configuration that concerns the pipeline.
func (c *Core) pipelineConfig(cfg *config.Config) pipeline.Config {
	e, o, q, s := cfg.Engine, cfg.Orchestration, cfg.PGMQ, cfg.System
	return pipeline.Config{
		Host:        store.HostInfo{Name: hostName(), Version: c.build.Version, Environment: cfg.Environment, State: string(c.state.State())},
		Environment: cfg.Environment,
		State:       func() string { return string(c.state.State()) },
		Plugins:     c.runningPlugins,

		MaxInFlight: e.MaxInFlight, InputCache: inputCache, Memory: stepMemory, MemoryShare: memoryShare, MaxDependency: maxDependency, Hands: handsConfig(cfg),
		StepExecutors: func(namespace string) int { return cfg.ExecutorPools.StepExecution.Bounds(namespace).Min },

		Lease: o.Lease + o.DeadHostGrace, Heartbeat: o.Heartbeat, SelfStop: o.Lease/6 + o.DeadHostGrace,
		SweepInterval: o.SweepInterval, LostAfter: max(6*o.SweepInterval, o.Lease),
		RestAfter: o.RestAfter, RestBeat: restBeat,
		InboxVT: q.VisibilityTimeout, InboxMaxReads: q.MaxReads,
		RequestQueue: o.TaskRequestsQueue, ResultQueue: o.StepResultsQueue,
		Policy: store.Policy{RetryAfterCap: o.RetryAfterCap, ClaimFactor: o.ClaimCapFactor},
		Retention: store.Retention{
			Tasks: o.Retention.Tasks, Namespaces: o.Retention.ByNamespace(), Keys: o.Retention.IdempotencyKeys,
			DeadLetters: o.Retention.DeadLetters, Audit: o.Retention.Audit, Records: o.Retention.Records,
		},
		Payload: payload.Limits{MaxBytes: s.MaxContextBytes, MaxDepth: s.MaxDepth},
		Results: payload.Limits{MaxBytes: s.MaxResultBytes, MaxDepth: s.MaxDepth},

		Tracer: c.tracer(),
	}
}

// handsConfig returns the initial sizes and paces of the pools whose executors take
// turns; from then on the coordinator sets them.
func handsConfig(cfg *config.Config) map[pipeline.PoolKind]pipeline.HandsConfig {
	all := map[pipeline.PoolKind]pipeline.HandsConfig{}
	settings := poolSettings(cfg)
	for _, kind := range []pipeline.PoolKind{
		pipeline.TaskRequestProcessor, pipeline.TaskClaimer, pipeline.StepEnqueuer, pipeline.StepResultProcessor, pipeline.TaskFinalizer,
	} {
		s := settings(string(kind), "")
		all[kind] = pipeline.HandsConfig{Size: s.Min, Pace: s.Pace}
	}
	return all
}

// runningPlugins returns the plugins that are serving, for the other hosts to see.
func (c *Core) runningPlugins() []readmodel.HostPlugin {
	if c.plugins == nil {
		return nil
	}
	var all []readmodel.HostPlugin
	for _, s := range c.plugins.Status() {
		if s.Generation != 0 {
			all = append(all, readmodel.HostPlugin{Kind: s.Kind, Name: s.Name, Version: s.Version, Generation: s.Generation})
		}
	}
	return all
}
