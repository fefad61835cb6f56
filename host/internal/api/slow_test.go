package api_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Many clients that send a byte now and then, for ever: the server hangs up on each of
// them, and serves others meanwhile.
func TestDrippingClientsAreCutOff(t *testing.T) {
	t.Parallel()
	socket := apitest.SocketPath(t)
	start(t, newServer(t, api.Config{Socket: socket, HeaderTimeout: 3 * time.Second, BodyTimeout: 3 * time.Second}))
	const each = 50
	var drips sync.WaitGroup
	for _, begin := range []string{
		"GET /health/live HTTP/1.1\r\nHost: tasker\r\nX-Long: ",
		"POST /v1/tasks HTTP/1.1\r\nHost: tasker\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{\"a\":\"",
		"POST /v1/tasks HTTP/1.1\r\nHost: tasker\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		drop := "x"
		if strings.Contains(begin, "chunked") {
			drop = "1\r\n \r\n"
		}
		for range each {
			c, err := net.Dial("unix", socket)
			require.NoError(t, err)
			drips.Go(func() { drip(c, begin, drop) })
		}
	}
	over := make(chan struct{})
	go func() { drips.Wait(); close(over) }()
	client := httpClient(t, socket)
	served := 0
	for waiting := true; waiting; served++ {
		require.Equal(t, http.StatusOK, callWith(t, client, "GET", "/health/live", "").status)
		select {
		case <-over:
			waiting = false
		default:
		}
	}
	require.Positive(t, served)
}

// TestIdleClientsKeepNobodyOut: a client that holds all available connections and
// requests nothing over them makes room for others. A probe that had to wait would cause
// the host to be restarted.
func TestIdleClientsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	const most = 4
	socket := apitest.SocketPath(t)
	start(t, newServer(t, api.Config{Socket: socket, Connections: most}))
	for range most {
		require.Equal(t, http.StatusOK, callWith(t, httpClient(t, socket), "GET", "/health/live", "").status) // and the connection stays
	}
	late := httpClient(t, socket)
	late.Timeout = 30 * time.Second
	require.Equal(t, http.StatusOK, callWith(t, late, "GET", "/health/live", "").status)
}

// drip sends a text and then a little more again and again, until the server hangs up.
func drip(c net.Conn, begin, drop string) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	hungUp := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, c)
		close(hungUp)
	}()
	_, err := io.WriteString(c, begin)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for err == nil {
		select {
		case <-hungUp:
			return
		case <-tick.C:
			_, err = io.WriteString(c, drop)
		}
	}
	<-hungUp
}

// A client that opens a stream and reads nothing is cut off once the connection is full,
// and nobody else waits for it.
func TestStreamThatIsNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	b := apitest.New()
	socket := apitest.SocketPath(t)
	server, err := api.New(api.Config{Socket: socket, EventTimeout: 5 * time.Second}, b.All(), nil, hclog.NewNullLogger())
	require.NoError(t, err)
	start(t, server)
	c, err := net.Dial("unix", socket)
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	_, err = io.WriteString(c, "GET /v1/events HTTP/1.1\r\nHost: tasker\r\n\r\n")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return b.Streams() == 1 }, time.Minute, time.Millisecond)
	other := following(t, httpClient(t, socket), "http://tasker", "")
	_, _ = other()
	large := taskEvent("shop", oneTask, "error")
	large.Message = strings.Repeat("m", 100_000)
	happen := func() {
		b.Happened(large)
		l, ok := other()
		require.True(t, ok)
		require.Equal(t, readmodel.EventTask, l.name)
	}
	for range 50 { // more than a connection buffers
		happen()
	}
	require.Eventually(t, func() bool { return b.Streams() == 1 }, time.Minute, time.Millisecond)
	happen() // the client that reads stays
	require.Equal(t, http.StatusOK, call(t, socket, "GET", "/health/live", "").status)
}
