package backend

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Every cause with its sentence.
func TestCauses(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	soon, before := now.Add(time.Minute), now.Add(-time.Minute)
	boom := &readmodel.StepError{Type: vocab.RetryableError, Message: "boom"}
	host := func(state string, alive bool, served ...string) readmodel.Host {
		return readmodel.Host{Name: "blue", State: state, Alive: alive, Served: served}
	}
	serving := []readmodel.Host{host("normal", true, "h")}
	idle := []readmodel.Host{host("normal", true)}
	plugin := func(state, message string) []readmodel.Plugin {
		return []readmodel.Plugin{{Kind: "handler", Name: "good", State: "serving"}, {Kind: "handler", Name: "ship", State: state, Message: message}}
	}
	enqueued := readmodel.Step{State: vocab.StepEnqueued}
	parents := []readmodel.Step{
		{Name: "root", State: vocab.StepError, Error: boom},
		{Name: "middle", State: vocab.StepPending, Parents: []string{"root"}},
		{Name: "side", State: vocab.StepInProgress},
	}
	for name, c := range map[string]struct {
		step  readmodel.Step
		in    surroundings
		ahead int // -1: not found
		cause readmodel.Cause
		text  string
	}{
		"complete":   {step: readmodel.Step{State: vocab.StepComplete, FinishedAt: &before}, cause: readmodel.CauseFinished, text: "it was completed at 2026-03-01 11:59:00Z"},
		"resolved":   {step: readmodel.Step{State: vocab.StepResolvedManually}, cause: readmodel.CauseFinished, text: "an operator declared it done"},
		"cancelled":  {step: readmodel.Step{State: vocab.StepCancelled}, cause: readmodel.CauseCancelled, text: "it was cancelled with its task"},
		"failed":     {step: readmodel.Step{State: vocab.StepError, Attempts: 3, MaxAttempts: 3, Error: boom}, cause: readmodel.CauseFailed, text: "it failed for good, in attempt 3 of 3: boom"},
		"exhausted":  {step: readmodel.Step{State: vocab.StepError, Error: &readmodel.StepError{Type: vocab.ClaimsExhausted, Message: "claimed 9 times"}}, cause: readmodel.CauseClaims, text: "it failed for good: claimed 9 times"},
		"running":    {step: readmodel.Step{State: vocab.StepInProgress, StartedAt: &before, Lease: &readmodel.Lease{Holder: "blue", ExpiresAt: &soon}}, cause: readmodel.CauseRunning, text: "it is running on blue (since 2026-03-01 11:59:00Z), whose lease lasts until 2026-03-01 12:01:00Z unless it is extended"},
		"lost":       {step: readmodel.Step{State: vocab.StepInProgress, Lease: &readmodel.Lease{Holder: "blue", ExpiresAt: &before}}, cause: readmodel.CauseLeaseOver, text: "it ran on blue, whose lease ended at 2026-03-01 11:59:00Z: the next sweep gives it back"},
		"parents":    {step: readmodel.Step{State: vocab.StepPending, Parents: []string{"side"}}, cause: readmodel.CauseParents, text: "it waits for side (in_progress)"},
		"blocked":    {step: readmodel.Step{State: vocab.StepPending, Parents: []string{"side", "middle"}}, cause: readmodel.CauseBlocked, text: "step root, on which it depends, failed for good: boom"},
		"retry":      {step: readmodel.Step{State: vocab.StepPending, DueAt: &soon, Attempts: 1, MaxAttempts: 3, Error: boom}, cause: readmodel.CauseRetryDue, text: "it waits until 2026-03-01 12:01:00Z for attempt 2 of 3; the last failed: boom"},
		"given back": {step: readmodel.Step{State: vocab.StepEnqueued, DueAt: &soon}, cause: readmodel.CauseRetryDue, text: "it waits until 2026-03-01 12:01:00Z: it was given back because its plugin or host was lost"},
		"paused": {
			step: enqueued, in: surroundings{hosts: serving, queue: readmodel.Queue{Namespace: "shop", Paused: &readmodel.Pause{Since: before, By: "ops", Reason: "we move"}}},
			cause: readmodel.CausePaused, text: "its queue, shop, has been paused since 2026-03-01 11:59:00Z by ops: we move",
		},
		"next":     {step: enqueued, in: surroundings{hosts: serving}, cause: readmodel.CauseQueued, text: "it is next in shop_queue; h is served by blue"},
		"queued":   {step: enqueued, in: surroundings{hosts: serving}, ahead: 7, cause: readmodel.CauseQueued, text: "it waits in shop_queue behind 7 others; h is served by blue"},
		"far":      {step: enqueued, in: surroundings{hosts: serving}, ahead: -1, cause: readmodel.CauseQueued, text: "it waits in shop_queue behind at least 1000 others, or its message is about to be sent again; h is served by blue"},
		"no host":  {step: enqueued, in: surroundings{hosts: []readmodel.Host{host("dead", false, "h")}}, cause: readmodel.CauseNoHost, text: "no host is alive to run it"},
		"draining": {step: enqueued, in: surroundings{hosts: []readmodel.Host{host("graceful_shutdown", true, "h")}}, cause: readmodel.CauseDraining, text: "only hosts that are shutting down serve its handler h: blue"},
		"unserved": {step: enqueued, in: surroundings{hosts: idle, plugins: plugin("serving", "")}, cause: readmodel.CauseUnserved, text: "no live host serves its handler h, and no plugin of this host is about to; see `tasker plugin list` and `tasker host list`"},
		"starting": {step: enqueued, in: surroundings{hosts: idle, plugins: plugin("starting", "")}, cause: readmodel.CauseStarting, text: "no live host serves its handler h; on this host, plugin ship is starting"},
		"backing off": {
			step: enqueued, in: surroundings{hosts: idle, plugins: plugin("backing_off", "exit status 1")}, cause: readmodel.CauseBackingOff,
			text: "no live host serves its handler h; on this host, plugin ship is backing_off: exit status 1",
		},
		"breaker": {step: enqueued, in: surroundings{hosts: idle, plugins: plugin("failed", "died 5 times")}, cause: readmodel.CauseBreakerOpen, text: "no live host serves its handler h; on this host, plugin ship is failed: died 5 times"},
		"refused": {step: enqueued, in: surroundings{hosts: idle, plugins: plugin("refused", "its hash differs")}, cause: readmodel.CauseRefused, text: "no live host serves its handler h; on this host, plugin ship is refused: its hash differs"},
		"stopped": {step: enqueued, in: surroundings{hosts: idle, plugins: plugin("stopped", "")}, cause: readmodel.CauseStopped, text: "no live host serves its handler h; on this host, plugin ship is stopped"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.step.Name, c.step.Handler = "it", "h"
			c.in.now, c.in.queue.Queue = now, "shop_queue"
			c.in.ahead = func(string) (int, bool, error) { return c.ahead, c.ahead >= 0, nil }
			e, err := c.in.explain(&c.step, append(parents[:3:3], c.step))
			require.NoError(t, err)
			require.Equal(t, c.cause, e.Cause)
			require.Equal(t, c.text, e.Text)
		})
	}
}
