package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/breaker"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// link is a proxy to a database that can be cut and counts connections.
type link struct {
	listener net.Listener
	network  string
	address  string
	comers   atomic.Int64
	cut      atomic.Bool
	frost    atomic.Pointer[frost]
	done     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// newLink returns a link to the database of a connection string, and the connection
// string that leads through it.
func newLink(t *testing.T, dsn string) (*link, string) {
	t.Helper()
	target, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	l := &link{conns: map[net.Conn]bool{}}
	l.network, l.address = pgconn.NetworkAddress(target.Host, target.Port)
	l.listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.done.Go(l.accept)
	t.Cleanup(func() {
		require.NoError(t, l.listener.Close())
		l.sever()
		l.done.Wait()
	})
	return l, fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", target.User, l.listener.Addr(), target.Database)
}

func (l *link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.comers.Add(1)
		if l.cut.Load() {
			_ = near.Close()
			continue
		}
		far, err := net.Dial(l.network, l.address)
		if err != nil {
			_ = near.Close()
			continue
		}
		l.mu.Lock()
		l.conns[near], l.conns[far] = true, true
		l.mu.Unlock()
		for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
			l.done.Go(func() {
				_, _ = io.Copy(pair[0], frosted{pair[1], l})
				_, _ = pair[0].Close(), pair[1].Close()
			})
		}
	}
}

// frost freezes the first connection over which a given word is sent, until it thaws.
type frost struct {
	word   []byte
	caught atomic.Bool
	thaw   chan struct{}
}

// freeze freezes the next connection over which a word is sent.
func (l *link) freeze(word string) *frost {
	f := &frost{word: []byte(word), thaw: make(chan struct{})}
	l.frost.Store(f)
	return f
}

// frosted is one end of a connection through a link.
type frosted struct {
	io.Reader
	link *link
}

// Read implements [io.Reader].
func (f frosted) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if frost := f.link.frost.Load(); frost != nil && bytes.Contains(p[:n], frost.word) && !frost.caught.Swap(true) {
		<-frost.thaw
	}
	return n, err
}

// sever breaks all connections and lets no new ones through.
func (l *link) sever() {
	l.cut.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.Close()
	}
	clear(l.conns)
}

const oneStepTemplate = `namespace: outage
name: one
version: 1.0.0
steps:
  - {name: a, handler: nobody.serves}
`

// TestOutage cuts a running host off from its database. With breakers, it refuses
// requests, tries the database now and then, logs little, and recovers by itself long
// before the breaker's timeout. Without breakers, it recovers as well.
func TestOutage(t *testing.T) {
	t.Parallel()
	for _, protected := range []bool{true, false} {
		t.Run(fmt.Sprintf("protected=%t", protected), func(t *testing.T) {
			t.Parallel()
			way, dsn := newLink(t, pgtest.DSN(t))
			b := start(t, fmt.Sprintf("[circuit_breakers]\nenabled = %t\n[circuit_breakers.database]\ntimeout = \"300s\"\n", protected), "DATABASE_URL="+dsn)
			_, _, err := b.api.ApplyTemplate(t.Context(), "one.yaml", []byte(oneStepTemplate))
			require.NoError(t, err)
			submit := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, _, err := b.api.Submit(ctx, client.Submission{Namespace: "outage", Name: "one"})
				return err
			}
			require.NoError(t, submit())
			state := func() breaker.Status { return b.breakers.Of(breaker.Database).Status() }
			require.Equal(t, breaker.Closed, state().State)

			way.sever()
			if protected {
				b.eventually(t, "the breaker opens", func() bool { _ = submit(); return state().State == breaker.Open })
			} else {
				b.eventually(t, "calls fail", func() bool { return submit() != nil })
			}
			// It must not spin. The limit is far above what is observed, and far below
			// what a loop without waits would do.
			tried, said, refused := way.comers.Load(), lines(b), state().Refused
			const length = 4 * time.Second
			pace := time.NewTicker(100 * time.Millisecond)
			defer pace.Stop()
			began := time.Now()
			for ; time.Since(began) < length; <-pace.C {
				err := submit()
				fault, ok := errors.AsType[*client.Error](err)
				require.True(t, ok, "%v", err)
				require.Equal(t, http.StatusServiceUnavailable, fault.Status)
				require.Positive(t, fault.RetryAfter)
			}
			b.eventually(t, "it checks whether the database is back", func() bool { return way.comers.Load() > tried })
			tries, words, took := way.comers.Load()-tried, lines(b)-said, time.Since(began).Seconds()
			t.Logf("in %.1fs: %d connections tried, %d lines logged, %d calls refused", took, tries, words, state().Refused-refused)
			if protected {
				require.Equal(t, breaker.Open, state().State)
				require.Greater(t, state().Refused, refused)
				require.Less(t, float64(tries), 40*took, "connections tried")
				require.Less(t, float64(words), 60*took, "lines logged")
			} else {
				require.Equal(t, breaker.Closed, state().State)
				require.Zero(t, state().Refused)
			}

			way.cut.Store(false)
			b.eventually(t, "the host takes tasks again", func() bool { return submit() == nil })
			b.eventually(t, "the host is ready", func() bool { h, err := b.api.Ready(t.Context()); return err == nil && h.Status == "ok" })
			if protected {
				b.eventually(t, "the breaker closes", func() bool { return state().State == breaker.Closed })
			}
		})
	}
}

func lines(b *bed) int { return strings.Count(b.log.String(), "\n") }

// TestReasonOfABreakerIsOneLine: it is shown in tables, and says why no connection could
// be made, not just that none could.
func TestReasonOfABreakerIsOneLine(t *testing.T) {
	t.Parallel()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, nobody.Close())
	_, err = pgx.Connect(t.Context(), fmt.Sprintf("postgres://x@%s/x", nobody.Addr()))
	require.Error(t, err)
	one := breaker.Config{Failures: 1, Timeout: time.Minute, Probes: 1}
	set := breaker.New(breaker.Limits{Enabled: true, Database: one, Queue: one}, func(breaker.Change) {}, prometheus.NewRegistry(), time.Now)
	for range 3 {
		gate{breakers: set}.Told(fmt.Errorf("heartbeat of host 1: %w", err))
	}
	s := set.Of(breaker.Database).Status()
	require.Equal(t, breaker.Open, s.State)
	require.Regexp(t, `^no connection: .*refused$`, s.Reason)
	require.Zero(t, s.Refused, "heartbeats are always made")
}

// TestBreakerForMaintenance: an operator holds the database's breaker open. The host
// keeps running, and reports it.
func TestBreakerForMaintenance(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	_, _, err := b.api.ApplyTemplate(t.Context(), "one.yaml", []byte(oneStepTemplate))
	require.NoError(t, err)
	opened, err := b.api.OpenBreaker(t.Context(), "database", client.Operator{By: "kim", Reason: "the disk is exchanged"})
	require.NoError(t, err)
	require.Equal(t, "forced_open", opened.State)
	require.Contains(t, opened.Reason, "(kim): the disk is exchanged")
	_, _, err = b.api.Submit(t.Context(), client.Submission{Namespace: "outage", Name: "one"})
	fault, ok := errors.AsType[*client.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, http.StatusServiceUnavailable, fault.Status)
	require.Contains(t, fault.Detail, "breaker")

	before := b.Engine.LastHeartbeat()
	b.eventually(t, "heartbeats continue", func() bool { return b.Engine.LastHeartbeat().After(before) })
	page, err := b.api.Breakers(t.Context())
	require.NoError(t, err)
	require.True(t, page.Enabled)
	require.Equal(t, "database", page.Items[0].Name)
	require.Positive(t, page.Items[0].Refused)
	_, metrics := b.get(t, "/metrics")
	require.Contains(t, metrics, `tasker_breakers{class="all",dependency="database",state="forced_open"} 1`)
	b.eventually(t, "the health report names it", func() bool {
		r, err := b.api.Health(t.Context())
		require.NoError(t, err)
		for _, i := range r.Items {
			if i.Name == "breakers" && i.Status == "degraded" {
				return strings.Contains(i.Message, "the disk is exchanged")
			}
		}
		return false
	})

	_, err = b.api.CloseBreaker(t.Context(), "database", client.Operator{By: "kim"})
	require.NoError(t, err)
	_, _, err = b.api.Submit(t.Context(), client.Submission{Namespace: "outage", Name: "one"})
	require.NoError(t, err)
	entries, err := b.api.Audit(t.Context(), "", "", 100)
	require.NoError(t, err)
	var actions []string
	for _, e := range entries.Items {
		actions = append(actions, e.Action)
	}
	require.Contains(t, actions, "POST /v1/breakers/{breaker}/open", "recorded although the breaker is open")
	require.Contains(t, actions, "POST /v1/breakers/{breaker}/close")

	_, err = b.api.OpenBreaker(t.Context(), "nothing", client.Operator{})
	fault, ok = errors.AsType[*client.Error](err)
	require.True(t, ok, "%v", err)
	require.True(t, fault.NotFound())
	require.Contains(t, fault.Detail, "want database, or queue.NAME.CLASS")
}

// TestBadQueue: a broken queue opens its own breaker and no other.
func TestBadQueue(t *testing.T) {
	t.Parallel()
	b := start(t, "[circuit_breakers.pgmq]\ntimeout = \"300s\"\n")
	requests := breaker.ID{Queue: b.cfg.Orchestration.TaskRequestsQueue, Class: breaker.Read}
	_, err := b.pool.Exec(t.Context(), "alter table pgmq.q_task_requests_queue rename to gone")
	require.NoError(t, err)
	b.eventually(t, "its breaker opens", func() bool { return b.breakers.Of(requests).Status().State == breaker.Open })
	require.Contains(t, b.breakers.Of(requests).Status().Reason, "task_requests_queue")
	results := breaker.ID{Queue: b.cfg.Orchestration.StepResultsQueue, Class: breaker.Read}
	for _, id := range []breaker.ID{breaker.Database, results} {
		require.Equal(t, breaker.Closed, b.breakers.Of(id).Status().State, id.String())
	}
	_, err = b.pool.Exec(t.Context(), "alter table pgmq.gone rename to q_task_requests_queue")
	require.NoError(t, err)
	_, err = b.api.ResetBreaker(t.Context(), requests.String(), client.Operator{By: "kim"})
	require.NoError(t, err)
	b.eventually(t, "its breaker closes", func() bool { return b.breakers.Of(requests).Status().State == breaker.Closed })
}

// TestWhatCountsAsFailure: business errors never count.
func TestWhatCountsAsFailure(t *testing.T) {
	t.Parallel()
	pg := func(code string) error { return fmt.Errorf("call: %w", &pgconn.PgError{Code: code}) }
	for _, c := range []struct {
		name            string
		err             error
		database, queue breaker.Outcome
	}{
		{"none", nil, breaker.Success, breaker.Success},
		{"no row", pgx.ErrNoRows, breaker.Success, breaker.Failure},
		{"duplicate key", pg("23505"), breaker.Success, breaker.Success},
		{"value out of range", pg("22003"), breaker.Success, breaker.Success},
		{"our own exception", pg("P0001"), breaker.Success, breaker.Failure},
		{"deadlock", pg("40P01"), breaker.Success, breaker.Success},
		{"lock timeout", pg("55P03"), breaker.Success, breaker.Failure},
		{"statement timeout", pg("57014"), breaker.Success, breaker.Failure},
		{"no such queue", pg("42P01"), breaker.Success, breaker.Failure},
		{"not allowed", pg("42501"), breaker.Success, breaker.Ignored},
		{"shutting down", pg("57P01"), breaker.Failure, breaker.Ignored},
		{"starting", pg("57P03"), breaker.Failure, breaker.Ignored},
		{"too many connections", pg("53300"), breaker.Failure, breaker.Ignored},
		{"read-only", pg("25006"), breaker.Failure, breaker.Ignored},
		{"broken connection", io.ErrUnexpectedEOF, breaker.Failure, breaker.Ignored},
		{"no answer in time", context.DeadlineExceeded, breaker.Failure, breaker.Ignored},
		{"the caller went away", context.Canceled, breaker.Ignored, breaker.Ignored},
		{"refused by a breaker", store.ErrRefused, breaker.Ignored, breaker.Ignored},
	} {
		require.Equal(t, c.database, ofDatabase(c.err), "database: %s", c.name)
		require.Equal(t, c.queue, ofQueue(c.err), "queue: %s", c.name)
	}
}

// TestProbesOfTheHost: it takes the configured number of calls to close a half-open
// breaker, no fewer.
func TestProbesOfTheHost(t *testing.T) {
	t.Parallel()
	b := start(t, "[circuit_breakers.database]\nprobes = 3\n[circuit_breakers.pgmq]\nprobes = 4\n")
	require.Equal(t, 3, b.breakers.Of(breaker.Database).Status().Config.Probes, "circuit_breakers.database.probes")
	id := breaker.ID{Queue: "a_queue", Class: breaker.Claim} // not used by anyone else
	b.breakers.Of(id).ForceOpen("")
	b.breakers.Of(id).Reset("")
	for i := range 4 {
		require.Equal(t, breaker.HalfOpen, b.breakers.Of(id).Status().State, "after %d of circuit_breakers.pgmq.probes", i)
		leave, err := gate{b.breakers, b.state}.Enter("a_queue", store.ClassClaim)
		require.NoError(t, err)
		leave(nil)
	}
	require.Equal(t, breaker.Closed, b.breakers.Of(id).Status().State)
}
