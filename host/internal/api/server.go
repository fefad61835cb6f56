package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.opentelemetry.io/otel/trace"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
)

// Limits on clients. A request that exceeds them is cut off.
const (
	writeTimeout   = 60 * time.Second // handling and answer; event streams extend it
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	maxConnections = 1024
)

// Config says where the API listens and what it accepts.
type Config struct {
	Socket      string // path of the unix socket; empty: none
	SocketGroup bool   // the socket's group may connect too (0660 instead of 0600)
	TCP         string // address such as 127.0.0.1:8085; empty: none. Beyond loopback only with Access.Bearers
	TLS         TLSFiles
	Access      Access
	MaxPayload  int64 // bytes of a context or a template; 0: 1 MiB
	MaxDepth    int   // of a context; 0: 64

	HeaderTimeout time.Duration // for a client to send its header; 0: 5 s
	BodyTimeout   time.Duration // for a client to send its body; 0: 15 s
	EventTimeout  time.Duration // for a client to receive an event of a stream; 0: 15 s

	Connections int // of a listener at the same time; 0: 1024

	Tracer trace.Tracer // nil: requests are not traced
}

func (c Config) withDefaults() Config {
	if c.MaxPayload <= 0 {
		c.MaxPayload = payload.DefaultMaxBytes
	}
	if c.MaxDepth <= 0 {
		c.MaxDepth = payload.DefaultMaxDepth
	}
	c.Connections = cmp.Or(c.Connections, maxConnections)
	c.HeaderTimeout = cmp.Or(c.HeaderTimeout, 5*time.Second)
	c.BodyTimeout = cmp.Or(c.BodyTimeout, 15*time.Second)
	c.EventTimeout = cmp.Or(c.EventTimeout, 15*time.Second)
	return c
}

// Server serves the API. Start and Stop follow the lifecycle contract: each may be called
// again after the other.
type Server struct {
	cfg     Config
	socket  http.Handler // serves clients of the socket
	tcp     http.Handler // serves clients over TCP
	mux     *http.ServeMux
	log     hclog.Logger
	streams *streams
	failed  chan error

	mu        sync.Mutex // guards the fields below
	servers   []*http.Server
	listeners []net.Listener
	serving   sync.WaitGroup
}

// New builds the API on top of a backend. metrics serves GET /metrics and may be nil.
func New(cfg Config, b Backend, metrics http.Handler, log hclog.Logger) (*Server, error) {
	if cfg.Socket == "" && cfg.TCP == "" {
		return nil, errors.New("the API has nowhere to listen: neither a socket nor an address is set")
	}
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, log: log, mux: http.NewServeMux(), streams: &streams{}, failed: make(chan error, 2)}
	mux := s.mux
	r := newRoutes(mux, b, cfg, log, s.streams)
	description, err := describe(r.api)
	if err != nil {
		return nil, err
	}
	mux.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(description)
	})
	if metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
	inner := withBodyLimit(cfg.MaxPayload+bodySlack, withRoutes(mux))
	a := newAccess(cfg.Access, b.Audit, log)
	outer := func(who recognize) http.Handler {
		return withRequestID(withRecovery(log, a.guard(mux, who, inner)))
	}
	s.socket, s.tcp = outer(a.local), outer(a.remote)
	if cfg.Access.Bearers == nil {
		s.tcp = withLocalOnly(s.tcp)
	}
	return s, nil
}

// Start listens and serves until Stop. It returns once clients can connect.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.servers) > 0 {
		return errors.New("the API is already serving")
	}
	s.streams.reopen()
	if s.cfg.Socket != "" {
		l, err := listenUnix(ctx, s.cfg.Socket, s.cfg.SocketGroup)
		if err != nil {
			return err
		}
		s.serve(l, s.socket, nil)
	}
	if s.cfg.TCP != "" {
		certificate, err := loadCertificate(s.cfg.TLS)
		if err != nil {
			return errors.Join(err, s.close(ctx))
		}
		l, err := listenTCP(ctx, s.cfg.TCP, s.cfg.Access.Bearers != nil)
		if err != nil {
			return errors.Join(err, s.close(ctx))
		}
		s.serve(l, s.tcp, certificate)
	}
	return nil
}

// serve serves a listener, encrypted if there is a certificate.
func (s *Server) serve(l net.Listener, h http.Handler, c *certificate) {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		ReadTimeout:       s.cfg.HeaderTimeout + s.cfg.BodyTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	run := srv.Serve
	if c != nil {
		srv.TLSConfig = c.config()
		run = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
	}
	// One request at a time per connection is all that clients need, and HTTP/2 offers
	// more ways to flood a server.
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.RegisterOnShutdown(s.streams.end)
	dismiss := func() { // closes connections that wait for another request
		srv.SetKeepAlivesEnabled(false)
		srv.SetKeepAlivesEnabled(true)
	}
	s.servers = append(s.servers, srv)
	s.listeners = append(s.listeners, l)
	s.log.Info("serving the API", "network", l.Addr().Network(), "address", l.Addr().String(), "tls", c != nil)
	s.serving.Go(func() {
		if err := run(newBounded(l, s.cfg.Connections, dismiss)); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("the API stopped serving", "address", l.Addr().String(), "error", err)
			s.failed <- fmt.Errorf("serve the API on %s: %w", l.Addr(), err)
		}
	})
}

// Failed delivers the error of a listener that failed while it served.
func (s *Server) Failed() <-chan error { return s.failed }

// Addresses returns where the server listens, in the order socket, TCP.
func (s *Server) Addresses() []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	addrs := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Stop ends the event streams, lets requests in flight finish until ctx ends,
// and then cuts them off.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.close(ctx)
}

func (s *Server) close(ctx context.Context) error {
	var errs []error
	for _, srv := range s.servers {
		if err := srv.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop the API: requests were cut off: %w", err), srv.Close())
		}
	}
	s.serving.Wait()
	s.servers, s.listeners = nil, nil
	return errors.Join(errs...)
}
