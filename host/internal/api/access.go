package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Authenticator identifies the principal behind a bearer token. Errors that wrap
// auth.ErrRefused are answered with 401, all others with 503.
type Authenticator interface {
	Authenticate(ctx context.Context, bearer string) (auth.Principal, error)
}

// Access says who is let in over TCP. The Unix socket is protected by the mode of its
// file.
type Access struct {
	Bearers  Authenticator // nil: everybody on this machine is let in, and nobody else
	Requests *auth.Limiter // of each client; nil: no limit

	// Now is the clock by which invalid bearers are counted; default time.Now.
	Now func() time.Time
}

const (
	failuresPerSecond = 5 // invalid bearers from one address
	failuresBurst     = 20
	auditTimeout      = 5 * time.Second
)

// access is the middleware that decides which requests are let in, by who makes them,
// how often, and what they may do, and that records what they changed.
type access struct {
	Access
	table    map[string]rule
	failures *auth.Limiter
	audit    Audit
	log      hclog.Logger
}

func newAccess(a Access, audit Audit, log hclog.Logger) *access {
	if a.Now == nil {
		a.Now = time.Now
	}
	return &access{
		Access: a, table: permissions(), failures: auth.NewLimiter(failuresPerSecond, failuresBurst, a.Now),
		audit: audit, log: log,
	}
}

// recognize determines who makes a request.
type recognize func(r *http.Request, open bool) (auth.Principal, *problem)

// local recognizes clients of the Unix socket: their address is their user.
func (a *access) local(r *http.Request, _ bool) (auth.Principal, *problem) {
	return auth.Principal{Kind: auth.Local, Name: r.RemoteAddr, Permissions: auth.Everything()}, nil
}

// remote recognizes clients over TCP. open means that the route is public.
func (a *access) remote(r *http.Request, open bool) (auth.Principal, *problem) {
	address := r.RemoteAddr
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	if a.Bearers == nil || open {
		p := auth.Principal{Kind: auth.Anonymous, Name: address}
		if a.Bearers == nil {
			p.Permissions = auth.Everything()
		}
		return p, a.tooOften(p)
	}
	bearer, p := bearerOf(r)
	if p == nil {
		principal, err := a.Bearers.Authenticate(r.Context(), bearer)
		switch {
		case err == nil:
			return principal, a.tooOften(principal)
		case errors.Is(err, auth.ErrRefused):
			p = unauthenticated(err.Error())
		default:
			a.log.Warn("a token cannot be checked", "request", requestID(r.Context()), "error", err)
			return principal, unavailable("tokens cannot be checked now", 0)
		}
	}
	// Only failures count against an address: a client with a valid token is let in
	// whatever others try from the same address.
	if wait := a.failures.Allow(address); wait > 0 {
		return auth.Principal{}, tooMany("too many requests with wrong tokens", wait)
	}
	a.log.Debug("not authenticated", "request", requestID(r.Context()), "address", address, "reason", p.Detail)
	return auth.Principal{}, p
}

func (a *access) tooOften(p auth.Principal) *problem {
	if a.Requests == nil {
		return nil
	}
	if wait := a.Requests.Allow(p.String()); wait > 0 {
		return tooMany("too many requests", wait)
	}
	return nil
}

// bearerOf reads the token of a request. It is accepted only in the header: not in the
// URL, which is logged, and not in a cookie, which a browser sends by itself.
func bearerOf(r *http.Request) (string, *problem) {
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return "", unauthenticated("a token is required: send 'Authorization: Bearer TOKEN'")
	}
	scheme, bearer, _ := strings.Cut(headers[0], " ")
	bearer = strings.TrimSpace(bearer)
	if len(headers) > 1 || !strings.EqualFold(scheme, "Bearer") || bearer == "" {
		return "", unauthenticated("want one header 'Authorization: Bearer TOKEN'")
	}
	return bearer, nil
}

func unauthenticated(detail string) *problem {
	p := newProblem(http.StatusUnauthorized, CodeUnauthenticated, detail)
	p.header = http.Header{"Www-Authenticate": {`Bearer realm="tasker"`}}
	return p
}

func tooMany(detail string, wait time.Duration) *problem {
	seconds := retrySeconds(wait)
	p := newProblem(http.StatusTooManyRequests, CodeTooManyRequests, fmt.Sprintf("%s; try again in %d s", detail, seconds))
	p.header = http.Header{"Retry-After": {strconv.Itoa(seconds)}}
	return p
}

// guard lets through requests that may pass to the routes of mux.
func (a *access) guard(mux *http.ServeMux, who recognize, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(r)
		rule, known := a.table[pattern]
		principal, p := who(r, known && rule.public)
		switch {
		case p != nil:
			writeProblem(w, r, p)
			return
		case pattern == "": // no such route, which next will report
		case !known:
			a.log.Error(missing(pattern))
			writeProblem(w, r, newProblem(http.StatusForbidden, CodePermissionDenied, "this route is closed"))
			return
		case !rule.public && !principal.Permissions.Allows(rule.need):
			a.deny(w, r, principal, pattern, rule)
			return
		}
		r = r.WithContext(a.withRecheck(auth.With(r.Context(), principal), r, principal))
		if pattern == "" || !rule.audited(r.Method) {
			next.ServeHTTP(w, r)
			return
		}
		a.serveAudited(w, r, pattern, next)
	})
}

type recheckKey struct{}

// withRecheck returns a context through which a long request finds out whether the
// bearer that it presented is still valid.
func (a *access) withRecheck(ctx context.Context, r *http.Request, principal auth.Principal) context.Context {
	if principal.Kind != auth.ByToken && principal.Kind != auth.ByJWT {
		return ctx
	}
	bearer, p := bearerOf(r)
	if p != nil {
		return ctx
	}
	return context.WithValue(ctx, recheckKey{}, func(ctx context.Context) error {
		_, err := a.Bearers.Authenticate(ctx, bearer)
		return err
	})
}

func (a *access) deny(w http.ResponseWriter, r *http.Request, principal auth.Principal, pattern string, rule rule) {
	if rule.audited(r.Method) {
		a.record(r, principal, pattern, "", http.StatusForbidden)
	}
	writeProblem(w, r, newProblem(http.StatusForbidden, CodePermissionDenied,
		fmt.Sprintf("%s may not do this: it requires the permission %s", payload.Text(principal.String(), 100), rule.need)))
}

// serveAudited answers a request and records the outcome. The entry is written after the
// change; if writing it fails, the log has it.
func (a *access) serveAudited(w http.ResponseWriter, r *http.Request, pattern string, next http.Handler) {
	ctx, subject := auth.WithSubject(r.Context())
	r = r.WithContext(ctx)
	tracked := &trackingWriter{ResponseWriter: w}
	returned := false
	defer func() {
		status := tracked.status
		if !returned { // a panic is in progress
			status = http.StatusInternalServerError
		}
		a.record(r, auth.From(ctx), pattern, subject(), status)
	}()
	next.ServeHTTP(tracked, r)
	returned = true
}

func (a *access) record(r *http.Request, p auth.Principal, action, subject string, status int) {
	if subject == "" {
		subject = r.URL.Path
	}
	e := readmodel.AuditEntry{
		Actor: payload.Text(p.String(), maxActor), Action: action, Subject: payload.Text(subject, 500),
		RequestID: requestID(r.Context()), Address: r.RemoteAddr, Outcome: outcomeOf(status), Status: status,
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), auditTimeout)
	defer cancel()
	err := errors.New("no audit is configured")
	if a.audit != nil {
		err = a.audit.RecordAudit(ctx, e)
	}
	if err != nil {
		a.log.Error("not recorded in the audit", "actor", e.Actor, "action", e.Action, "subject", e.Subject,
			"request", e.RequestID, "address", e.Address, "outcome", e.Outcome, "status", e.Status, "error", err)
	}
}

func outcomeOf(status int) string {
	switch {
	case status < http.StatusBadRequest:
		return readmodel.AuditDone
	case status < http.StatusInternalServerError:
		return readmodel.AuditRefused
	default:
		return readmodel.AuditFailed
	}
}
