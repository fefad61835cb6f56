package archtest

const (
	inConfig    = "config"
	inBreaker   = "host/internal/breaker"
	inCore      = "host/internal/core"
	inPipeline  = "host/internal/pipeline"
	inPlugins   = "host/internal/pluginhost"
	inPool      = "host/internal/pool"
	inStore     = "host/internal/store"
	inE2E       = "host/internal/e2e"
	inAuth      = "host/internal/auth"
	inSelection = "host/internal/pluginset"
	inScaling   = "scaling"

	inCoordinator = "host/internal/coordinator"
)

// whileRunning is the proof that a running host takes a key over.
func whileRunning(key string, more ...proof) []proof {
	return append(more, proof{inCore, "TestEveryLiveKeyReloads", key})
}

// atStart are proofs of a host that was started with another value.
func atStart(key string, more ...proof) []proof {
	return append(more, proof{inCore, "TestKeysOfAHostThatStarts", key})
}

// plugin are proofs of a setting of a plugin: that the plugin host is told, and
// what it does with it.
func plugin(key string, more ...proof) []proof {
	return append(more, proof{inCore, "TestSettingsOfPluginsReachThePluginHost", key + " = "})
}

// proofs names, for each key, the tests that fail if it stops to act.
var proofs = withPools(map[string][]proof{
	"auth.enabled":               {{inCore, "TestAuthIsOffOnLoopbackOnly", "auth.enabled"}},
	"auth.token_refresh":         {{inCore, "TestTokensOfTheHost", "auth.token_refresh"}},
	"auth.requests_per_second":   {{inCore, "TestLimitsOfClients", "requests_per_second"}},
	"auth.burst":                 {{inCore, "TestLimitsOfClients", "burst"}},
	"auth.jwt.issuer":            {{inCore, "TestTokensOfAnIdentityProvider", "another issuer"}},
	"auth.jwt.audience":          {{inCore, "TestTokensOfAnIdentityProvider", "another audience"}},
	"auth.jwt.keys_url":          {{inCore, "TestTokensOfAnIdentityProvider", "the new key"}},
	"auth.jwt.keys_file":         {{inCore, "TestKeysOfAnIdentityProviderInAFile", "KEYS_FILE"}},
	"auth.jwt.keys_refresh":      {{inCore, "TestTokensOfAnIdentityProvider", "keys_refresh"}, {inAuth, "TestKeysAreReadAgain", "KeysRefresh"}},
	"auth.jwt.algorithms":        {{inCore, "TestTokensOfAnIdentityProvider", "not allowed"}},
	"auth.jwt.clock_skew":        {{inCore, "TestTokensOfAnIdentityProvider", "auth.jwt.clock_skew"}},
	"auth.jwt.permissions_claim": {{inCore, "TestTokensOfAnIdentityProvider", "auth.jwt.permissions_claim"}},
	"auth.tls.cert_file":         {{inCore, "TestTLS", "cert.pem"}},
	"auth.tls.key_file":          {{inCore, "TestTLS", "key.pem"}},
	"auth.tls.by_proxy":          {{inConfig, "TestAuthThatWouldNotProtect", "auth.tls.by_proxy"}},

	"circuit_breakers.enabled":           {{inCore, "TestOutage", "circuit_breakers"}},
	"circuit_breakers.database.failures": whileRunning("circuit_breakers.database.failures", proof{inBreaker, "TestOpensAfterFailuresInARow", "Failures"}),
	"circuit_breakers.database.timeout":  whileRunning("circuit_breakers.database.timeout", proof{inBreaker, "TestOpensAfterFailuresInARow", "Timeout"}),
	"circuit_breakers.database.probes":   {{inBreaker, "TestProbesAreBounded", "Probes"}, {inCore, "TestProbesOfTheHost", "database"}},
	"circuit_breakers.pgmq.failures":     whileRunning("circuit_breakers.pgmq.failures", proof{inBreaker, "TestModel", "Failures"}),
	"circuit_breakers.pgmq.timeout":      whileRunning("circuit_breakers.pgmq.timeout", proof{inBreaker, "TestModel", "Timeout"}),
	"circuit_breakers.pgmq.probes":       {{inBreaker, "TestProbesAreBounded", "Probes"}, {inCore, "TestProbesOfTheHost", "pgmq"}},

	"circuit_breakers.plugin_crash_loop.failures": {{inPlugins, "TestCrashLoop", "Restart.Exits"}, {inPlugins, "TestBackOff", "Exits"}},
	"circuit_breakers.plugin_crash_loop.window":   {{inPlugins, "TestBackOff", "Window"}},
	"circuit_breakers.plugin_crash_loop.timeout":  {{inPlugins, "TestBackOff", "Open"}, {inPlugins, "TestCrashLoopEnds", "Restart.Open"}},

	"database.url":                atStart("database.url", proof{inConfig, "TestDatabaseURL", "DATABASE_URL"}),
	"database.url_file":           {{inConfig, "TestDatabaseURL", "url_file"}},
	"database.max_connections":    atStart("database.max_connections"),
	"database.connect_timeout":    atStart("database.connect_timeout"),
	"database.statement_timeout":  atStart("database.statement_timeout"),
	"database.lock_timeout":       atStart("database.lock_timeout"),
	"database.embedded.state_dir": {{inCore, "TestKeysOfThePrivateServer", "database.embedded.state_dir"}},
	"database.embedded.bin_dir":   {{inCore, "TestKeysOfThePrivateServer", "database.embedded.bin_dir"}},
	"database.embedded.install":   {{inCore, "TestKeysOfThePrivateServer", "database.embedded.install"}},

	"engine.max_in_flight": whileRunning("engine.max_in_flight", proof{inPipeline, "TestNoMoreThanMaxInFlightIsHeld", "MaxInFlight"}),
	"engine.max_steps":     whileRunning("engine.max_steps", proof{inCore, "TestReloadOfFilesIsAllOrNothing", "max_steps"}),

	"executor_pools.coordinator.auto_scaling":   whileRunning("executor_pools.coordinator.auto_scaling", proof{inCoordinator, "TestWithoutAutoScalingThePoolStays", "Enabled"}),
	"executor_pools.coordinator.interval":       whileRunning("executor_pools.coordinator.interval", proof{inCoordinator, "TestRun", "Interval"}),
	"executor_pools.coordinator.timeout":        whileRunning("executor_pools.coordinator.timeout", proof{inCoordinator, "TestABadAlgorithmHoldsThePool", "Timeout"}),
	"executor_pools.coordinator.step_up":        whileRunning("executor_pools.coordinator.step_up", proof{inScaling, "TestRules", "StepUp"}),
	"executor_pools.coordinator.step_down":      whileRunning("executor_pools.coordinator.step_down", proof{inScaling, "TestRules", "StepDown"}),
	"executor_pools.coordinator.cooldown_up":    whileRunning("executor_pools.coordinator.cooldown_up", proof{inCoordinator, "TestThePolicyHoldsThroughTheCoordinator", "CooldownUp"}),
	"executor_pools.coordinator.cooldown_down":  whileRunning("executor_pools.coordinator.cooldown_down", proof{inCoordinator, "TestThePolicyHoldsThroughTheCoordinator", "CooldownDown"}),
	"executor_pools.coordinator.dead_band":      whileRunning("executor_pools.coordinator.dead_band", proof{inScaling, "TestRules", "DeadBand"}),
	"executor_pools.coordinator.stabilization":  whileRunning("executor_pools.coordinator.stabilization", proof{inScaling, "TestRules", "Stabilization"}),
	"executor_pools.coordinator.reversal":       whileRunning("executor_pools.coordinator.reversal", proof{inCoordinator, "TestThePolicyHoldsThroughTheCoordinator", "Reversal"}),
	"executor_pools.coordinator.stale":          whileRunning("executor_pools.coordinator.stale", proof{inCoordinator, "TestWithoutMeasurementsThePoolHolds", "Stale"}),
	"executor_pools.coordinator.min_confidence": whileRunning("executor_pools.coordinator.min_confidence", proof{inScaling, "TestWhateverIsWrongHoldsThePool", "MinConfidence"}),
	"executor_pools.coordinator.resources":      whileRunning("executor_pools.coordinator.resources", proof{inCoordinator, "TestSetIsCheckedAgainstTheResources", "Enforce"}),
	"executor_pools.coordinator.memory_share":   whileRunning("executor_pools.coordinator.memory_share", proof{inCoordinator, "TestResourcesAreChecked", "MemoryShare"}),
	"executor_pools.step_execution.min":         whileRunning("executor_pools.step_execution.min", proof{inCoordinator, "TestSetRefusesWhatMakesNoSense", "Min"}),
	"executor_pools.step_execution.max":         whileRunning("executor_pools.step_execution.max", proof{inCoordinator, "TestSetRefusesWhatMakesNoSense", "Max"}),
	"executor_pools.step_execution.namespaces":  whileRunning("executor_pools.step_execution.namespaces", proof{inConfig, "TestBoundsOfNamespaces", "namespaces"}),
	"executor_pools.step_execution.algorithm":   whileRunning("executor_pools.step_execution.algorithm", proof{inCoordinator, "TestAPoolGetsTheSizeThatItsAlgorithmAdvises", "Algorithm"}),
	"executor_pools.step_execution.shadow":      whileRunning("executor_pools.step_execution.shadow", proof{inCoordinator, "TestAShadowIsRecordedAndHasNoEffect", "Shadow"}),
	"executor_pools.step_execution.memory":      whileRunning("executor_pools.step_execution.memory", proof{inCoordinator, "TestResourcesAreChecked", "Memory"}),

	"orchestration.lease":              atStart("orchestration.lease", proof{inPipeline, "TestSettingsReachTheCallsThatObeyThem", "Lease"}),
	"orchestration.heartbeat":          atStart("orchestration.heartbeat", proof{inPipeline, "TestHostDeclaredDeadRegistersAnew", "Heartbeat"}),
	"orchestration.dead_host_grace":    atStart("dead_host_grace"),
	"orchestration.rest_after":         whileRunning("orchestration.rest_after", proof{inPipeline, "TestARestingHostIsRousedByWhatIsSent", "sleepy"}),
	"orchestration.sweep_interval":     whileRunning("orchestration.sweep_interval", proof{inPipeline, "TestSettingsReachTheCallsThatObeyThem", "SweepInterval"}),
	"orchestration.finalization_claim": {{inCore, "TestFinalizationClaim", "orchestration.finalization_claim"}},
	"orchestration.claim_cap_factor":   whileRunning("orchestration.claim_cap_factor", proof{inPipeline, "TestSettingsReachTheCallsThatObeyThem", "ClaimFactor"}),
	"orchestration.retry_after_cap":    whileRunning("orchestration.retry_after_cap", proof{inStore, "TestWaitsAreThePolicys", "RetryAfterCap"}),
	"orchestration.drain_timeout":      whileRunning("orchestration.drain_timeout", proof{inE2E, "TestDrainEnds", "DRAIN_TIMEOUT"}),
	"orchestration.emergency_timeout":  whileRunning("orchestration.emergency_timeout", proof{inE2E, "TestDrainEnds", "EMERGENCY_TIMEOUT"}),
	"orchestration.supervisor_timeout": whileRunning("orchestration.supervisor_timeout",
		proof{inConfig, "TestTimeBudgetsThatContradictEachOther", "orchestration.supervisor_timeout"}),
	"orchestration.task_requests_queue": atStart("orchestration.task_requests_queue"),
	"orchestration.step_results_queue":  atStart("orchestration.step_results_queue"),

	"orchestration.retention.tasks":            whileRunning("orchestration.retention.tasks", proof{inStore, "TestRetention", "Tasks: 30"}),
	"orchestration.retention.namespaces":       whileRunning("orchestration.retention.namespaces", proof{inStore, "TestRetention", "Namespaces"}),
	"orchestration.retention.idempotency_keys": whileRunning("orchestration.retention.idempotency_keys", proof{inStore, "TestRetentionOfRecords", "Keys"}),
	"orchestration.retention.dead_letters":     whileRunning("orchestration.retention.dead_letters", proof{inStore, "TestRetentionOfRecords", "DeadLetters"}),
	"orchestration.retention.audit":            whileRunning("orchestration.retention.audit", proof{inStore, "TestRetentionOfTheAudit", "Audit"}),
	"orchestration.retention.records":          whileRunning("orchestration.retention.records", proof{inStore, "TestRetentionOfRecords", "Records"}),

	"query_cache.max_plans": {{inCore, "TestQueryCacheKey", "max_plans"}, {inStore, "TestPlanCache", "CachePlans"}},

	"pgmq.visibility_timeout": whileRunning("pgmq.visibility_timeout", proof{inPipeline, "TestSettingsReachTheCallsThatObeyThem", "InboxVT"}),
	"pgmq.max_reads":          whileRunning("pgmq.max_reads", proof{inPipeline, "TestMessagesReadTooOftenAreSetAside", "InboxMaxReads"}),

	"system.state_dir":         atStart("system.state_dir"),
	"system.socket":            atStart("system.socket"),
	"system.http_listen":       atStart("system.http_listen"),
	"system.plugins":           atStart("SYSTEM__PLUGINS"),
	"system.log_level":         whileRunning("system.log_level", proof{inCore, "TestReloadOfFilesIsAllOrNothing", "log_level"}),
	"system.log_format":        atStart("system.log_format"),
	"system.max_context_bytes": atStart("system.max_context_bytes"),
	"system.max_result_bytes": whileRunning("system.max_result_bytes",
		proof{inPipeline, "TestResultsThatCannotBeStoredFailTheirStepOnly", "Results"}, proof{inPipeline, "TestSettingsReachTheCallsThatObeyThem", "MaxResultBytes"}),
	"system.max_depth": atStart("system.max_depth"),

	"telemetry.metrics":             atStart("telemetry.metrics"),
	"telemetry.traces.endpoint":     {{inE2E, "TestOneTraceFromClientToFinish", "ENDPOINT"}},
	"telemetry.traces.sample_ratio": whileRunning("telemetry.traces.sample_ratio", proof{"host/internal/tracing", "TestRatioDecidesAndCanChange", "Sample("}),
	"telemetry.traces.headers":      {{inE2E, "TestOneTraceFromClientToFinish", "HEADERS"}},
	"telemetry.traces.headers_file": {{inE2E, "TestOneTraceFromClientToFinish", "HEADERS_FILE"}},

	"plugin.path":                  plugin("path", proof{inPlugins, "TestBadPluginsDoNotStart", "path"}),
	"plugin.sha256":                plugin("sha256", proof{inSelection, "TestPinAndPlatform", "sha256"}),
	"plugin.required":              plugin("required", proof{inPlugins, "TestOptionalPluginsAreTriedAgain", "Required"}),
	"plugin.user":                  plugin("user", proof{inPlugins, "TestAnotherUser", "User"}, proof{inSelection, "TestUser", "user"}),
	"plugin.max_in_flight":         plugin("max_in_flight", proof{inPlugins, "TestMoreThanTheWindowWaits", "MaxInFlight"}),
	"plugin.start_timeout":         plugin("start_timeout", proof{inPlugins, "TestBadPluginsDoNotStart", "StartTimeout"}),
	"plugin.drain_timeout":         plugin("drain_timeout", proof{inPlugins, "TestLongStepsOutliveQuickSwaps", "DrainTimeout"}),
	"plugin.rollback_window":       plugin("rollback_window", proof{inPlugins, "TestCrashLoopFallsBack", "RollbackWindow"}),
	"plugin.memory_limit":          plugin("memory_limit", proof{inPlugins, "TestEnvironmentIsClean", "MemoryLimit"}),
	"plugin.max_memory":            plugin("max_memory", proof{inPlugins, "TestMemoryIsLimited", "Limits.Memory"}, proof{inPlugins + "/process", "TestGroupsOfADelegatedTree", "memory.max"}),
	"plugin.max_processes":         plugin("max_processes", proof{inPlugins + "/process", "TestGroupsOfADelegatedTree", "pids.max"}),
	"plugin.max_cpus":              plugin("max_cpus", proof{inPlugins + "/process", "TestGroupsOfADelegatedTree", "cpu.max"}),
	"plugin.max_log_lines":         plugin("max_log_lines", proof{inPlugins, "TestFloodOfLogs", "LinesPerSecond"}),
	"plugin.max_log_bytes":         plugin("max_log_bytes", proof{inPlugins + "/process", "TestLogLimits", "BytesPerSecond"}),
	"plugin.rollout.strategy":      plugin("strategy", proof{inPlugins, "TestCanaryTakesOver", "CanarySteps"}, proof{inPlugins, "TestShadow", "Shadow"}),
	"plugin.rollout.steps":         plugin("steps", proof{inPlugins, "TestCanaryTakesOver", "Rollout.Steps"}),
	"plugin.rollout.hold":          plugin("hold", proof{inPlugins, "TestCanaryTakesOver", "quick("}),
	"plugin.rollout.latency_floor": plugin("latency_floor", proof{inPlugins + "/rollout", "TestTheFloorOfLatencies", "LatencyFloor"}, proof{inPlugins, "TestWorseIsTakenBack", "LatencyFloor"}),
	"plugins.lock.required":        {{inSelection, "TestLockIsEnforced", "lock"}},
	"plugins.trust.keys":           {{inSelection, "TestSignatures", "keys"}},
})

// withPools adds the keys of the pools whose executors take turns, which are the
// same for each: that a running host brings them into the pool, and what the pool
// does with them.
func withPools(all map[string][]proof) map[string][]proof {
	batch := proof{inPipeline, "TestSettingsReachTheCallsThatObeyThem", "p.Batch"}
	poll := proof{inPipeline, "TestIdleQueuesAreLookedAtAsOftenAsThePaceSays", "PollMax"}
	effects := map[string][]proof{
		"min": {{inPipeline, "TestSettingsReachTheCallsThatObeyThem", "h.Size"}}, "max": {{inCoordinator, "TestSetRefusesWhatMakesNoSense", "Max"}},
		"batch": {batch}, "algorithm": nil, "shadow": nil,
		"turn_timeout": {{inPool, "TestTimeoutsAreThoseOfThePace", "TurnTimeout"}},
		"stop_timeout": {{inPool, "TestTimeoutsAreThoseOfThePace", "StopTimeout"}, {inPipeline, "TestASlowPoolHoldsUpNoStop", "StopTimeout"}},
	}
	for _, kind := range []string{"task_request_processor", "task_claimer", "step_enqueuer", "step_result_processor", "task_finalizer"} {
		add := func(key string, more []proof) {
			all["executor_pools."+kind+"."+key] = append([]proof{{inCore, "TestEveryLiveKeyReloads", `add("` + key + `"`}}, more...)
		}
		for key, more := range effects {
			add(key, more)
		}
		if kind != "step_enqueuer" && kind != "task_finalizer" {
			add("poll_min", []proof{poll})
			add("poll_max", []proof{poll})
		}
	}
	return all
}
