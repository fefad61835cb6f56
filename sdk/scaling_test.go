package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/health"
	"github.com/tasker-systems/tasker-host/sdk/plugintest"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// counter wants one more executor each time it is asked.
type counter struct{ n int }

func (c *counter) Decide(ctx context.Context, o scaler.Observation) (scaler.Decision, error) {
	switch o.Kind {
	case "panic":
		c.n = 1000
		panic("boom")
	case "error":
		return scaler.Decision{}, errors.New("no idea")
	case "silent":
		return scaler.Decision{}, errors.New("")
	case "bad":
		return scaler.Decision{Target: -1, Confidence: 2}, nil
	case "wait":
		<-ctx.Done()
		return scaler.Decision{}, context.Cause(ctx)
	}
	c.n++
	return scaler.Decision{Target: c.n, Confidence: 1, Reason: "one more"}, nil
}

func (c *counter) Snapshot(context.Context) ([]byte, error) {
	if c.n == 0 {
		return nil, nil
	}
	return strconv.AppendInt(nil, int64(c.n), 10), nil
}

func (c *counter) Restore(_ context.Context, snapshot []byte) (err error) {
	c.n = 500
	if c.n, err = strconv.Atoi(string(snapshot)); err != nil {
		return fmt.Errorf("read count: %w", err)
	}
	return nil
}

// scaling serves an algorithm that learns, one that does not and one that
// cannot be made.
func scaling(t *testing.T) *wire.Client {
	t.Helper()
	return serve(t, sdk.Scaling("p", "1.0.0", map[string]scaler.New{
		"counter": func() scaler.Scaler { return &counter{} },
		"none":    func() scaler.Scaler { return nil },
		"flat": func() scaler.Scaler {
			return scaler.Func(func(context.Context, scaler.Observation) (scaler.Decision, error) {
				return scaler.Decision{Target: 3, Reason: "always"}, nil
			})
		},
	}, sdk.Logger(hclog.NewNullLogger())))
}

func serve(t *testing.T, parts ...sdk.Part) *wire.Client {
	t.Helper()
	client := plugintest.Connect(t, parts...)
	answer, err := client.Plugin.Configure(t.Context(), &pluginv1.ConfigureRequest{})
	require.NoError(t, err)
	require.Empty(t, answer.GetErrors())
	return client
}

// decide asks about one pool of a kind.
func decide(t *testing.T, client *wire.Client, algorithm, pool, kind string) *pluginv1.Decision {
	t.Helper()
	answer, err := client.Scaling.Decide(t.Context(), &pluginv1.DecideRequest{
		Algorithm: algorithm, Observations: []*pluginv1.Observation{{Pool: pool, Kind: kind}},
	})
	require.NoError(t, err)
	require.Len(t, answer.GetDecisions(), 1)
	return answer.GetDecisions()[0]
}

func TestEachPoolHasItsScaler(t *testing.T) {
	t.Parallel()
	client := scaling(t)
	answer, err := client.Scaling.Decide(t.Context(), &pluginv1.DecideRequest{
		Algorithm: "counter", Observations: []*pluginv1.Observation{{Pool: "a"}, {Pool: "b"}, {Pool: "a"}},
	})
	require.NoError(t, err)
	var targets []uint32
	for _, d := range answer.GetDecisions() {
		require.Empty(t, d.GetError())
		targets = append(targets, d.GetTarget())
	}
	require.Equal(t, []uint32{1, 1, 2}, targets)
}

func TestNoDecision(t *testing.T) {
	t.Parallel()
	client := scaling(t)
	require.Equal(t, uint32(1), decide(t, client, "counter", "a", "").GetTarget())
	require.Equal(t, "no idea", decide(t, client, "counter", "a", "error").GetError())
	require.Equal(t, "an error without a message, of type *errors.errorString", decide(t, client, "counter", "a", "silent").GetError())
	bad := decide(t, client, "counter", "a", "bad").GetError()
	require.Contains(t, bad, "the target is -1")
	require.Contains(t, bad, "the confidence is 2")
	require.Equal(t, uint32(2), decide(t, client, "counter", "a", "").GetTarget(), "an error changes nothing")
	require.Equal(t, "panic: boom", decide(t, client, "counter", "a", "panic").GetError())
	require.Equal(t, uint32(1), decide(t, client, "counter", "a", "").GetTarget(), "after a panic it starts again")
	require.Equal(t, "the algorithm made no scaler for the pool", decide(t, client, "none", "a", "").GetError())

	_, err := client.Scaling.Decide(t.Context(), &pluginv1.DecideRequest{Algorithm: "other"})
	require.Equal(t, codes.NotFound, status.Code(err))
}

// A pool whose scaler hangs does not hold up others, and is free again once the
// scaler ends.
func TestOneCallAPool(t *testing.T) {
	t.Parallel()
	client := scaling(t)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	hangs := make(chan error, 1)
	go func() {
		_, err := client.Scaling.Decide(short, &pluginv1.DecideRequest{
			Algorithm: "counter", Observations: []*pluginv1.Observation{{Pool: "a", Kind: "wait"}},
		})
		hangs <- err
	}()
	require.Equal(t, uint32(1), decide(t, client, "counter", "b", "").GetTarget())
	require.Equal(t, codes.DeadlineExceeded, status.Code(<-hangs))
	require.Equal(t, uint32(1), decide(t, client, "counter", "a", "").GetTarget())
}

func TestSnapshotOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	old, next := scaling(t), scaling(t)
	empty, err := old.Scaling.Snapshot(t.Context(), &pluginv1.SnapshotRequest{Algorithm: "counter", Pool: "a"})
	require.NoError(t, err)
	require.Empty(t, empty.GetSnapshot())
	decide(t, old, "counter", "a", "")
	decide(t, old, "counter", "a", "")
	snapshot, err := old.Scaling.Snapshot(t.Context(), &pluginv1.SnapshotRequest{Algorithm: "counter", Pool: "a"})
	require.NoError(t, err)
	require.Equal(t, "2", string(snapshot.GetSnapshot()))
	restored, err := next.Scaling.Restore(t.Context(), &pluginv1.RestoreRequest{
		Algorithm: "counter", Pool: "a", Snapshot: snapshot.GetSnapshot(),
	})
	require.NoError(t, err)
	require.Empty(t, restored.GetError())
	require.Equal(t, uint32(3), decide(t, next, "counter", "a", "").GetTarget())

	refused, err := next.Scaling.Restore(t.Context(), &pluginv1.RestoreRequest{
		Algorithm: "counter", Pool: "b", Snapshot: []byte("from the future"),
	})
	require.NoError(t, err)
	require.Contains(t, refused.GetError(), "read count")
	require.Equal(t, uint32(1), decide(t, next, "counter", "b", "").GetTarget(), "nothing half read stays")

	flat, err := next.Scaling.Snapshot(t.Context(), &pluginv1.SnapshotRequest{Algorithm: "flat", Pool: "a"})
	require.NoError(t, err)
	require.Empty(t, string(flat.GetSnapshot())+flat.GetError())
}

// A process that lives for years while pools come and go forgets the oldest.
func TestPoolsAreBounded(t *testing.T) {
	t.Parallel()
	client := scaling(t)
	for i := range 1025 {
		require.Equal(t, uint32(1), decide(t, client, "counter", strconv.Itoa(i), "").GetTarget())
	}
	require.Equal(t, uint32(2), decide(t, client, "counter", "1024", "").GetTarget())
	require.Equal(t, uint32(1), decide(t, client, "counter", "0", "").GetTarget(), "the oldest was forgotten")
}

func TestCallsDrain(t *testing.T) {
	t.Parallel()
	client := scaling(t)
	begun := make(chan error, 1)
	go func() {
		_, err := client.Scaling.Decide(t.Context(), &pluginv1.DecideRequest{
			Algorithm: "counter", Observations: []*pluginv1.Observation{{Pool: "a", Kind: "wait"}},
		})
		begun <- err
	}()
	require.Eventually(t, func() bool {
		h, err := client.Plugin.Health(t.Context(), &pluginv1.HealthRequest{})
		return err == nil && h.GetInFlight() == 1
	}, time.Minute, time.Millisecond)
	left, err := client.Plugin.Drain(t.Context(), &pluginv1.DrainRequest{TimeoutMs: 1})
	require.NoError(t, err)
	require.Equal(t, uint32(1), left.GetInFlight())
	_, err = client.Scaling.Decide(t.Context(), &pluginv1.DecideRequest{Algorithm: "counter"})
	require.Equal(t, codes.Unavailable, status.Code(err))
}

// One program may serve slots of all kinds.
func TestAllKindsInOnePlugin(t *testing.T) {
	t.Parallel()
	client := plugintest.Connect(
		t,
		sdk.Handlers("all", "1.0.0", map[string]handler.Handler{"h": handler.Func(echo)}),
		sdk.Scaling("all", "1.0.0", map[string]scaler.New{"s": func() scaler.Scaler { return &counter{} }}),
		sdk.Health("all", "1.0.0", map[string]health.Service{"c": {Checker: disk{}}, "r": {Reporter: &book{}}}),
	)
	_, err := client.Scaling.Decide(t.Context(), &pluginv1.DecideRequest{Algorithm: "s"})
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	d, err := client.Plugin.Describe(t.Context(), &pluginv1.DescribeRequest{})
	require.NoError(t, err)
	var slots []string
	for _, s := range d.GetSlots() {
		slots = append(slots, strings.Join(append([]string{s.GetKind(), s.GetName()}, s.GetAbilities()...), " "))
	}
	require.Equal(t, []string{"handler h", "scaling s", "health c check", "health r report"}, slots)

	_, err = client.Plugin.Configure(t.Context(), &pluginv1.ConfigureRequest{})
	require.NoError(t, err)
	require.Equal(t, uint32(1), decide(t, client, "s", "a", "").GetTarget())
	metrics, err := client.Plugin.Collect(t.Context(), &pluginv1.CollectRequest{})
	require.NoError(t, err)
	for _, line := range []string{
		`plugin_steps_total{handler="h",outcome="success"} 0`, `plugin_decisions_total{algorithm="s",outcome="success"} 1`,
		`plugin_checks_total{service="c",outcome="success"} 0`,
	} {
		require.Contains(t, string(metrics.GetMetrics()), line)
	}
}

func TestNewRefusesOtherKinds(t *testing.T) {
	t.Parallel()
	good := map[string]scaler.New{"s": func() scaler.Scaler { return nil }}
	for want, parts := range map[string][]sdk.Part{
		"algorithm s is given twice":        {sdk.Scaling("p", "1.0.0", good), sdk.Scaling("p", "1.0.0", good)},
		"algorithm s is nil":                {sdk.Scaling("p", "1.0.0", map[string]scaler.New{"s": nil})},
		"algorithm name \"S\"":              {sdk.Scaling("p", "1.0.0", map[string]scaler.New{"S": good["s"]})},
		"health service c is nil":           {sdk.Health("p", "1.0.0", map[string]health.Service{"c": {}})},
		"parts disagree":                    {sdk.Scaling("p", "1.0.0", good), sdk.Scaling("p", "1.0.1", good)},
		"no handlers, algorithms or health": {sdk.Scaling("p", "1.0.0", nil), sdk.Health("p", "1.0.0", nil)},
		"health service name \"C C\":":      {sdk.Health("p", "1.0.0", map[string]health.Service{"C C": {Checker: disk{}}})},
	} {
		_, err := sdk.New(parts...)
		require.ErrorContains(t, err, want)
	}
}
