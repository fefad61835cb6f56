package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/go-hclog"
)

type requestIDKey struct{}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// withRequestID gives every request an id: the client's X-Request-Id if it is harmless,
// else a random one.
func withRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !harmlessID(id) {
			id = rand.Text()
		}
		w.Header().Set("X-Request-Id", id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id)))
	})
}

func harmlessID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// withRecovery answers a panic with a problem; the stack goes only to the log.
func withRecovery(log hclog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tracked := &trackingWriter{ResponseWriter: w}
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if r.Context().Err() != nil {
				panic(http.ErrAbortHandler) // the client has left, so there is nobody to answer
			}
			log.Error("panic in request", "request", requestID(r.Context()), "method", r.Method,
				"path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if tracked.started {
				panic(http.ErrAbortHandler) // a broken response must not look complete
			}
			writeProblem(w, r, internal())
		}()
		next.ServeHTTP(tracked, r)
	})
}

// trackingWriter records whether a response has begun, and with which status.
type trackingWriter struct {
	http.ResponseWriter
	started bool
	status  int // 0: none yet
}

func (w *trackingWriter) WriteHeader(status int) {
	w.started = true
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *trackingWriter) Write(b []byte) (int, error) {
	w.started = true
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find flushing and deadlines.
func (w *trackingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// withRoutes serves the mux and answers what no route matches with a problem.
func withRoutes(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		probe := &headerProbe{header: http.Header{}}
		h.ServeHTTP(probe, r)
		if allow := probe.header.Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
			writeProblem(w, r, newProblem(http.StatusMethodNotAllowed, CodeMethodNotAllowed,
				fmt.Sprintf("%s is not allowed here; use one of: %s", r.Method, allow)))
			return
		}
		writeProblem(w, r, newProblem(http.StatusNotFound, CodeNotFound,
			"there is no such route; GET /v1/openapi.json lists all of them"))
	})
}

// headerProbe finds out what a handler would answer.
type headerProbe struct{ header http.Header }

func (p *headerProbe) Header() http.Header         { return p.header }
func (p *headerProbe) WriteHeader(int)             {}
func (p *headerProbe) Write(b []byte) (int, error) { return len(b), nil }

// withBodyLimit refuses a body whose announced length is too large before a byte of it is
// read. Bodies without a length are bounded by their route, and those of bulk submissions
// line by line.
func withBodyLimit(limit int64, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > limit && r.URL.Path != bulkPath {
			writeProblem(w, r, tooLarge(limit))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// withLocalOnly guards the TCP listener, which any web page on this machine
// could reach: the Host must be the loopback (DNS rebinding), and a browser's
// request must come from our own origin.
func withLocalOnly(next http.Handler) http.Handler {
	origin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopbackHost(r.Host) || origin.Check(r) != nil {
			writeProblem(w, r, newProblem(http.StatusForbidden, CodeForbidden,
				"this address serves local clients only"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func loopbackHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// writeProblem writes an answer outside of huma's routes.
func writeProblem(w http.ResponseWriter, r *http.Request, p *problem) {
	p.RequestID = requestID(r.Context())
	for k, v := range p.header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = marshalJSON(w, p)
}
