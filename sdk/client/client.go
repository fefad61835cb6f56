package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// requestTimeout bounds a request and its answer; watching is not bounded.
const requestTimeout = 60 * time.Second

const defaultSubmitPatience = 15 * time.Second

// Client calls the API of one host. It is safe for concurrent use.
type Client struct {
	http *http.Client
	base string // without a slash at the end
	name string // the host, as errors call it

	bearer   string        // empty: none
	patience time.Duration // of a submission
}

// clearText reports whether a token sent to a URL could be intercepted.
func clearText(u *url.URL) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback())
}

// Options says where the host is, by either Socket or URL.
type Options struct {
	Socket string // path of a unix socket
	URL    string // http or https, such as http://127.0.0.1:8085
	Token  string // bearer token for the URL; empty: none
	// Patience is how long Submit waits for a host that has no room; 0 means 15 seconds,
	// negative means not at all.
	Patience time.Duration
}

// New returns a client. It does not connect yet.
func New(o Options) (*Client, error) {
	patience := cmp.Or(o.Patience, defaultSubmitPatience)
	if o.URL == "" {
		return newClient(patience, "http://tasker", o.Socket, &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				d := net.Dialer{Timeout: 10 * time.Second}
				return d.DialContext(ctx, "unix", o.Socket)
			},
		}), nil
	}
	u, err := url.Parse(o.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%q is not the URL of a host: want http://address:port", o.URL)
	}
	if o.Token != "" && clearText(u) {
		return nil, fmt.Errorf("the token would go to %q unencrypted: use https, or a tunnel to a loopback address", u.Redacted())
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 90 * time.Second}
	if d, ok := http.DefaultTransport.(*http.Transport); ok { // unless the program has replaced it, for example by a tracer
		t = d.Clone()
	}
	c := newClient(patience, strings.TrimSuffix(u.String(), "/"), u.Redacted(), t)
	c.bearer = o.Token
	return c, nil
}

func newClient(patience time.Duration, base, name string, t *http.Transport) *Client {
	t.Proxy = nil // the host is local or named explicitly, so no proxy is used
	t.MaxIdleConnsPerHost = 8
	return &Client{http: &http.Client{Transport: t}, base: base, name: name, patience: patience}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Request is one call of the API.
type Request struct {
	Method, Path string
	Query        url.Values
	Header       http.Header
	JSON         any    // the body, encoded as JSON without touching what is inside strings; nil: Body
	Body         []byte // nil: none
	ContentType  string // of Body
}

// Call sends a request and decodes the answer into out. It is for parts of the API that this
// package has no method for; docs/openapi.json describes the API. It returns the status; a
// problem is an *[Error]. Call never repeats a request.
func (c *Client) Call(ctx context.Context, r Request, out any) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout,
		fmt.Errorf("the host did not answer within %s", requestTimeout))
	defer cancel()
	if r.JSON != nil {
		body, err := encode(r.JSON)
		if err != nil {
			return 0, fmt.Errorf("%s %s: %w", r.Method, r.Path, err)
		}
		r.Body, r.ContentType = body, "application/json"
	}
	var body io.Reader
	if r.Body != nil {
		body = bytes.NewReader(r.Body)
	}
	resp, err := c.send(ctx, r, body)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, c.unreachable(ctx, err)
	}
	if resp.StatusCode >= http.StatusBadRequest && !ordinary(resp) {
		return resp.StatusCode, errorOf(resp, data)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return resp.StatusCode, fmt.Errorf("%s %s: %s does not answer like a host: %w", r.Method, r.Path, c.name, err)
	}
	return resp.StatusCode, nil
}

// ordinary reports whether an answer with an error status is not a problem: health probes
// answer 503 with a body of their own.
func ordinary(resp *http.Response) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json")
}

// send returns the answer whatever its status; the caller closes its body.
func (c *Client) send(ctx context.Context, r Request, body io.Reader) (*http.Response, error) {
	target := c.base + r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, target, body)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	for k, v := range r.Header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "tasker")
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	if body != nil {
		req.Header.Set("Content-Type", r.ContentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	return resp, nil
}
