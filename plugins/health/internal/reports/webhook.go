package reports

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
)

// WebhookOptions say where events are posted.
type WebhookOptions struct {
	URL       string          `json:"url" doc:"events are posted here; redirects are not followed"`
	SecretEnv string          `json:"secret_env" doc:"the variable with the secret that signs requests; list it in env in plugins.toml"`
	Severity  health.Severity `json:"severity" doc:"the lowest severity that is posted: info, warning or critical"`
	Timeout   sdk.Duration    `json:"timeout" doc:"how long one answer may take"`
	Tries     int             `json:"tries" doc:"how often to try for one call of the host; the host sends again what failed"`
	Wait      sdk.Duration    `json:"wait" doc:"the wait between the first two tries; it doubles with each"`
}

// WebhookDefaults holds the default options.
var WebhookDefaults = WebhookOptions{
	Severity: health.Info, Timeout: sdk.Duration(5 * time.Second), Tries: 3, Wait: sdk.Duration(500 * time.Millisecond),
}

// The headers of a signed request: the signature is the HMAC-SHA256 of the time,
// a dot and the body, in hexadecimal.
const (
	HeaderTime      = "X-Tasker-Timestamp"
	HeaderSignature = "X-Tasker-Signature"
)

// Webhook posts events as JSON.
type Webhook struct {
	// Now is the clock; Getenv reads the environment.
	Now    func() time.Time
	Getenv func(string) string

	options WebhookOptions
	secret  []byte // empty: requests are not signed
	client  http.Client
}

var _ health.Reporter = (*Webhook)(nil)

// NewWebhook returns a reporter that must be configured before use.
func NewWebhook() *Webhook { return &Webhook{Now: time.Now, Getenv: os.Getenv} }

// Configure takes the options.
func (w *Webhook) Configure(_ context.Context, o WebhookOptions) error {
	var problems []error
	wrong := func(path, format string, args ...any) {
		problems = append(problems, &sdk.OptionError{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if u, err := url.Parse(o.URL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		wrong("/url", "want an address such as https://example.com/events")
	}
	if !slices.Contains(health.Severities, o.Severity) {
		wrong("/severity", "want info, warning or critical")
	}
	if o.Timeout <= 0 || o.Wait <= 0 {
		wrong("/timeout", "timeout and wait must be more than 0")
	}
	if o.Tries < 1 || o.Tries > 10 {
		wrong("/tries", "want 1 to 10")
	}
	if o.SecretEnv != "" {
		if w.secret = []byte(w.Getenv(o.SecretEnv)); len(w.secret) == 0 {
			wrong("/secret_env", "the variable %s is not set: set it for the host, and name it in env in plugins.toml", o.SecretEnv)
		}
	}
	w.options = o
	w.client = http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return errors.Join(problems...)
}

// event is the posted form of an event.
type event struct {
	ID       string            `json:"id"`
	Kind     health.Kind       `json:"kind"`
	Severity health.Severity   `json:"severity"`
	Subject  string            `json:"subject"`
	From     string            `json:"from,omitempty"`
	To       string            `json:"to,omitempty"`
	Time     time.Time         `json:"time"`
	Message  string            `json:"message"`
	Host     string            `json:"host"`
	State    string            `json:"state,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// Report posts the events that are severe enough, in one request.
func (w *Webhook) Report(ctx context.Context, events []health.Event) error {
	var posted []event
	for _, e := range events {
		if slices.Index(health.Severities, e.Severity) >= slices.Index(health.Severities, w.options.Severity) || !slices.Contains(health.Severities, e.Severity) {
			posted = append(posted, event(e))
		}
	}
	if len(posted) == 0 {
		return nil
	}
	body, err := json.Marshal(map[string]any{"events": posted})
	if err != nil {
		return fmt.Errorf("encode events: %w", errors.Join(err, health.ErrRejected))
	}
	wait := time.Duration(w.options.Wait)
	for try := 1; ; try++ {
		err := w.post(ctx, body)
		if err == nil || errors.Is(err, health.ErrRejected) || try == w.options.Tries {
			return err
		}
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
			wait *= 2
		case <-ctx.Done():
			pause.Stop()
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

func (w *Webhook) post(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(w.options.Timeout))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.options.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("post events: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	if len(w.secret) > 0 {
		at := strconv.FormatInt(w.Now().Unix(), 10)
		request.Header.Set(HeaderTime, at)
		request.Header.Set(HeaderSignature, "sha256="+Sign(w.secret, at, body))
	}
	answer, err := w.client.Do(request)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the address, which may hold a password
		}
		return fmt.Errorf("post events: %w", err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	_ = answer.Body.Close()
	switch s := answer.StatusCode; {
	case s >= 200 && s < 300:
		return nil
	case s >= 500 || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout:
		return fmt.Errorf("post events: the receiver answered with status %d", s)
	default:
		return fmt.Errorf("post events: the receiver answered with status %d: %w", s, health.ErrRejected)
	}
}

// Sign returns the signature of a request, for receivers to compare.
func Sign(secret []byte, at string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(at + "."))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}
