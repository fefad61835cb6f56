package client

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

type wrapped struct{ http.RoundTripper }

// Tracers replace the default transport by their own.
func TestNewWhereTheDefaultTransportIsWrapped(t *testing.T) { // not parallel: the program has one default
	before := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = before })
	http.DefaultTransport = wrapped{before}
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"alive":true}`))
	}))
	t.Cleanup(host.Close)
	c, err := New(Options{URL: host.URL})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	var out struct{ Alive bool }
	_, err = c.Call(t.Context(), Request{Method: http.MethodGet, Path: "/health/live"}, &out)
	require.NoError(t, err)
	require.True(t, out.Alive)
}
