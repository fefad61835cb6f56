package checks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
)

// HTTPOptions say which addresses are asked.
type HTTPOptions struct {
	Targets []Target     `json:"targets" doc:"the services to check"`
	Timeout sdk.Duration `json:"timeout" doc:"how long one answer may take"`
	Slow    sdk.Duration `json:"slow" doc:"an answer that takes longer is degraded"`
}

// Target is one address.
type Target struct {
	Name   string `json:"name" doc:"names the check: http:NAME"`
	URL    string `json:"url" doc:"requested with GET; redirects are not followed"`
	Status int    `json:"status" doc:"the expected status; 0: any from 200 to 299"`
}

// HTTPDefaults holds the default options.
var HTTPDefaults = HTTPOptions{Timeout: sdk.Duration(5 * time.Second), Slow: sdk.Duration(2 * time.Second)}

// HTTP checks whether addresses answer as they should.
type HTTP struct {
	options HTTPOptions
	client  http.Client
}

var _ health.Checker = (*HTTP)(nil)

// Configure takes the options.
func (h *HTTP) Configure(_ context.Context, o HTTPOptions) error {
	var problems []error
	wrong := func(path, format string, args ...any) {
		problems = append(problems, &sdk.OptionError{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if len(o.Targets) == 0 || len(o.Targets) > health.MaxChecks {
		wrong("/targets", "want 1 to %d targets", health.MaxChecks)
	}
	if o.Timeout <= 0 || o.Slow <= 0 {
		wrong("/timeout", "timeout and slow must be more than 0")
	}
	seen := map[string]bool{}
	for i, t := range o.Targets {
		at := fmt.Sprintf("/targets/%d", i)
		if t.Name == "" || len(t.Name) > 100 || seen[t.Name] {
			wrong(at+"/name", "want a name of its own of at most 100 bytes")
		}
		seen[t.Name] = true
		if u, err := url.Parse(t.URL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			wrong(at+"/url", "want an address such as https://example.com/health")
		}
		if t.Status != 0 && (t.Status < 100 || t.Status > 599) {
			wrong(at+"/status", "want an HTTP status, or 0")
		}
	}
	h.options = o
	h.client = http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return errors.Join(problems...)
}

// atOnce is how many addresses are asked at the same time.
const atOnce = 8

// Check asks all addresses.
func (h *HTTP) Check(ctx context.Context) ([]health.Check, error) {
	checks := make([]health.Check, len(h.options.Targets))
	places := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, t := range h.options.Targets {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			checks[i] = h.ask(ctx, t)
		})
	}
	all.Wait()
	return checks, nil
}

func (h *HTTP) ask(ctx context.Context, t Target) health.Check {
	c := health.Check{Name: "http:" + t.Name, Status: health.Healthy}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(h.options.Timeout), errors.New("no answer in time"))
	defer cancel()
	started := time.Now()
	status, err := h.get(ctx, t.URL)
	took := time.Since(started)
	c.Data = map[string]any{"took_ms": took.Milliseconds()}
	switch {
	case err != nil && ctx.Err() != nil:
		c.Status, c.Message = health.Unhealthy, context.Cause(ctx).Error()
	case err != nil:
		c.Status, c.Message = health.Unhealthy, plain(err)
	case !t.expects(status):
		c.Status, c.Message = health.Unhealthy, fmt.Sprintf("it answered with status %d", status)
	case took > time.Duration(h.options.Slow):
		c.Status, c.Message = health.Degraded, fmt.Sprintf("the answer took %s", took.Round(time.Millisecond))
	}
	if err == nil {
		c.Data["status"] = status
	}
	if len(c.Message) > health.MaxMessageBytes {
		c.Message = strings.ToValidUTF8(c.Message[:health.MaxMessageBytes], "")
	}
	return c
}

func (h *HTTP) get(ctx context.Context, address string) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, err
	}
	answer, err := h.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	_, err = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection can be used again
	return answer.StatusCode, err
}

// plain returns the error without the address, which may hold a password.
func plain(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err.Error()
	}
	return err.Error()
}

func (t Target) expects(status int) bool {
	if t.Status == 0 {
		return status >= 200 && status < 300
	}
	return status == t.Status
}
