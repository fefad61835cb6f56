package reporters_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/health"
	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/reporters"
	"github.com/tasker-systems/tasker-host/internal/leaks"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// host is a plugin host whose reporters answer as a test specifies.
type host struct {
	services []pluginhost.HealthService
	check    func(name string) (*pluginv1.CheckResponse, error)

	mu    sync.Mutex
	takes func(name string, n int) (*pluginv1.ReportResponse, error) // n counts its calls
	calls map[string]int
	taken map[string][]string // subjects, by reporter
}

func (h *host) HealthServices() []pluginhost.HealthService { return h.services }

func (h *host) Check(ctx context.Context, name string) (*pluginv1.CheckResponse, error) {
	if name == "hangs" {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return h.check(name)
}

func (h *host) Report(_ context.Context, r *pluginv1.ReportRequest) (*pluginv1.ReportResponse, error) {
	h.mu.Lock()
	h.calls[r.GetName()]++
	n, takes := h.calls[r.GetName()], h.takes
	h.mu.Unlock()
	answer, err := takes(r.GetName(), n)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && answer.GetError() == "" {
		for _, e := range r.GetEvents() {
			h.taken[r.GetName()] = append(h.taken[r.GetName()], e.GetSubject())
		}
	}
	return answer, err
}

func (h *host) got(name string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.taken[name]...)
}

func ok(string, int) (*pluginv1.ReportResponse, error) { return &pluginv1.ReportResponse{}, nil }

func newHost(services ...pluginhost.HealthService) *host {
	return &host{services: services, calls: map[string]int{}, taken: map[string][]string{}, takes: ok}
}

// run starts the delivery of events, which ends with the test.
func run(t *testing.T, h *host) (p *reporters.Plugins, stop func()) {
	t.Helper()
	p = reporters.New(h, "here", prometheus.NewRegistry(), hclog.NewNullLogger())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	synctest.Wait()
	return p, func() { cancel(); <-done }
}

func event(check string) health.Event {
	return health.Event{At: time.Now(), Check: check, From: health.Healthy, To: health.Unhealthy, Severity: health.Critical, State: opstate.Normal}
}

func TestEventsComeInOrderAndAreSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(pluginhost.HealthService{Name: "web", Reports: true}, pluginhost.HealthService{Name: "disk", Checks: true})
		h.takes = func(_ string, n int) (*pluginv1.ReportResponse, error) {
			switch n {
			case 1:
				return nil, errors.New("connection refused")
			case 2:
				return &pluginv1.ReportResponse{Error: "status 503"}, nil
			default:
				return &pluginv1.ReportResponse{}, nil
			}
		}
		p, stop := run(t, h)
		defer stop()
		p.Report(t.Context(), []health.Event{event("a"), event("b")})
		<-time.After(2500 * time.Millisecond)
		require.Empty(t, h.got("web"), "the second try failed too")
		p.Report(t.Context(), []health.Event{event("c")})
		<-time.After(time.Second)
		require.Equal(t, []string{"a", "b", "c"}, h.got("web"))
		require.Empty(t, h.calls["disk"], "it is not a reporter")
	})
}

func TestAReporterThatHangsHoldsUpNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(pluginhost.HealthService{Name: "hangs", Reports: true}, pluginhost.HealthService{Name: "works", Reports: true})
		let := make(chan struct{})
		h.takes = func(name string, _ int) (*pluginv1.ReportResponse, error) {
			if name == "hangs" {
				<-let
			}
			return &pluginv1.ReportResponse{}, nil
		}
		p, stop := run(t, h)
		defer stop()
		defer close(let)
		for i := range 1500 {
			p.Report(t.Context(), []health.Event{event(fmt.Sprint(i))})
			synctest.Wait()
		}
		require.Len(t, h.got("works"), 1500)
		require.Equal(t, 1, h.calls["hangs"])
	})
}

func TestRejectedEventsGoAndTheOldestOfTooManyAreDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(pluginhost.HealthService{Name: "picky", Reports: true})
		h.takes = func(_ string, n int) (*pluginv1.ReportResponse, error) {
			if n == 1 {
				return &pluginv1.ReportResponse{Error: "never heard of it", Rejected: true}, nil
			}
			return nil, errors.New("down")
		}
		p, stop := run(t, h)
		defer stop()
		p.Report(t.Context(), []health.Event{event("rejected")})
		synctest.Wait()
		for i := range 1200 {
			p.Report(t.Context(), []health.Event{event(fmt.Sprint(i))})
		}
		h.mu.Lock()
		h.takes = ok
		h.mu.Unlock()
		<-time.After(2 * time.Minute)
		got := h.got("picky")
		require.Len(t, got, 1000)
		require.Equal(t, "1199", got[len(got)-1])
		require.NotContains(t, got, "rejected")
	})
}

func TestACheckerThatDoesNotAnswerIsUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(
			pluginhost.HealthService{Name: "disk", Checks: true}, pluginhost.HealthService{Name: "down", Checks: true},
			pluginhost.HealthService{Name: "ill", Checks: true}, pluginhost.HealthService{Name: "web", Reports: true},
		)
		h.check = func(name string) (*pluginv1.CheckResponse, error) {
			switch name {
			case "down":
				return nil, pluginhost.ErrTimeout
			case "ill":
				return &pluginv1.CheckResponse{Error: "no such file"}, nil
			default:
				return &pluginv1.CheckResponse{Results: []*pluginv1.CheckResult{
					{Name: "/var", Status: pluginv1.CheckResult_STATUS_DEGRADED, Message: "4 % free"},
					{Name: "/tmp", Status: 99},
				}}, nil
			}
		}
		p, stop := run(t, h)
		defer stop()
		found := p.Look(t.Context(), health.View{State: opstate.Normal, Share: 1})
		require.Len(t, found, 4)
		require.Equal(t, health.Named{Name: "disk//var", Finding: health.Finding{Status: health.Degraded, Message: "4 % free"}}, found[0])
		require.Equal(t, health.Unknown, found[1].Status)
		require.Equal(t, health.Unknown, found[2].Status)
		require.Equal(t, "down", found[2].Name)
		require.Equal(t, "no such file", found[3].Message)
	})
}

// The checks that a checker has reported are unknown, under the same names, as long as it
// gives no usable answer; the text it sends is bounded.
func TestWhatWasToldStaysUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(pluginhost.HealthService{Name: "disk", Checks: true})
		p, stop := run(t, h)
		defer stop()
		look := func(answer *pluginv1.CheckResponse, err error) map[string]health.Finding {
			h.check = func(string) (*pluginv1.CheckResponse, error) { return answer, err }
			all := map[string]health.Finding{}
			for _, n := range p.Look(t.Context(), health.View{State: opstate.Normal, Share: 1}) {
				all[n.Name] = n.Finding
			}
			return all
		}
		fine := func(n int) *pluginv1.CheckResponse {
			answer := &pluginv1.CheckResponse{}
			for i := range n {
				answer.Results = append(answer.Results, &pluginv1.CheckResult{Name: fmt.Sprint(i), Status: pluginv1.CheckResult_STATUS_HEALTHY})
			}
			return answer
		}
		require.Equal(t, health.Unknown, look(nil, pluginhost.ErrNoPlugin)["disk"].Status, "it has reported nothing yet")
		require.Equal(t, map[string]health.Finding{"disk/0": {Status: health.Healthy}, "disk/1": {Status: health.Healthy}}, look(fine(2), nil))
		for message, bad := range map[string]struct {
			answer *pluginv1.CheckResponse
			err    error
		}{
			pluginhost.ErrNoPlugin.Error():                 {nil, pluginhost.ErrNoPlugin},
			"the answer has no results":                    {fine(0), nil},
			"the answer has 101 results: want at most 100": {fine(101), nil},
			strings.Repeat("x", 1021) + "…":                {&pluginv1.CheckResponse{Error: strings.Repeat("x", 1<<20)}, nil},
		} {
			f := health.Finding{Status: health.Unknown, Message: message}
			require.Equal(t, map[string]health.Finding{"disk/0": f, "disk/1": f}, look(bad.answer, bad.err))
		}
		require.Len(t, look(fine(100), nil), 100)
		for name, f := range look(&pluginv1.CheckResponse{Results: []*pluginv1.CheckResult{{Name: strings.Repeat("n", 1<<20)}}}, nil) {
			require.LessOrEqual(t, len(name), 200)
			require.Equal(t, health.Unknown, f.Status)
		}
	})
}

// One that hangs does not affect the answers of the others.
func TestACheckerThatHangsIsGivenUpBeforeTheLookEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(pluginhost.HealthService{Name: "disk", Checks: true}, pluginhost.HealthService{Name: "hangs", Checks: true})
		h.check = func(string) (*pluginv1.CheckResponse, error) {
			return &pluginv1.CheckResponse{Results: []*pluginv1.CheckResult{{Name: "a", Status: pluginv1.CheckResult_STATUS_HEALTHY}}}, nil
		}
		p, stop := run(t, h)
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		found := p.Look(ctx, health.View{State: opstate.Normal, Share: 1})
		require.NoError(t, ctx.Err())
		require.Equal(t, []health.Named{
			{Name: "disk/a", Finding: health.Finding{Status: health.Healthy}},
			{Name: "hangs", Finding: health.Finding{Status: health.Unknown, Message: pluginhost.ErrTimeout.Error()}},
		}, found)
	})
}
