package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// requestTimeout bounds a request and its answer; watching is not bounded.
const requestTimeout = 60 * time.Second

// Client calls one host. It is safe for concurrent use.
type Client struct {
	http *http.Client
	base string // without a slash at the end
	name string // the host, as errors call it
}

// Options says where the host is: one of the two.
type Options struct {
	Socket string // path of a unix socket
	URL    string // http or https, such as http://127.0.0.1:8085
}

// New returns a client. It does not connect yet.
func New(o Options) (*Client, error) {
	if o.URL == "" {
		return newClient("http://tasker", o.Socket, &http.Transport{
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
	return newClient(strings.TrimSuffix(u.String(), "/"), o.URL, http.DefaultTransport.(*http.Transport).Clone()), nil //nolint:forcetypeassert // documented
}

func newClient(base, name string, t *http.Transport) *Client {
	t.Proxy = nil // a host is local or named: no proxy lies between
	t.MaxIdleConnsPerHost = 8
	return &Client{http: &http.Client{Transport: t}, base: base, name: name}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request is one call.
type request struct {
	method, path string
	query        url.Values
	contentType  string // of body
	body         []byte
	header       http.Header
}

// call sends a request and decodes the answer into out. It returns the status.
func (c *Client) call(ctx context.Context, r request, out any) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout,
		fmt.Errorf("the host did not answer within %s", requestTimeout))
	defer cancel()
	resp, err := c.send(ctx, r)
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
		return resp.StatusCode, fmt.Errorf("%s %s: the answer of %s is not what a host answers: %w", r.method, r.path, c.name, err)
	}
	return resp.StatusCode, nil
}

// ordinary reports whether an answer with an error status is no problem: health
// probes answer 503 in their own shape.
func ordinary(resp *http.Response) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json")
}

// send returns the answer whatever its status; the caller closes the body.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "tasker")
	if r.body != nil {
		req.Header.Set("Content-Type", r.contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	return resp, nil
}
