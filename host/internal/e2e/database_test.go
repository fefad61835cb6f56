package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// requireRefusal requires that a host does not start, says why in one line that
// contains all the words, and shows no secret.
func requireRefusal(t *testing.T, s *site, words ...string) {
	t.Helper()
	began := time.Now()
	h := s.start(t)
	require.Equal(t, 1, h.await(t), h.log.String())
	require.Less(t, time.Since(began), patience)
	said := h.log.String()
	line := said[strings.LastIndex(strings.TrimSpace(said), "\n")+1:]
	for _, word := range words {
		require.Contains(t, line, word)
	}
	requireClean(t, said)
	require.NoFileExists(t, s.socket())
	t.Logf("the host says: %s", strings.TrimSpace(line))
}

// requireClean: no panic and no secret in what a user or an operator reads.
func requireClean(t *testing.T, text string) {
	t.Helper()
	for _, word := range []string{"panic:", "goroutine ", "DATA RACE", canary} {
		require.NotContains(t, text, word)
	}
}

func TestDatabaseUnreachableAtStart(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	s := newSite(t, "postgres://tasker:"+canary+"@"+address+"/tasker")
	requireRefusal(t, s, address, "connection refused", "correct DATABASE_URL")
}

// TestDatabaseIsSilentAtStart: it accepts connections and says nothing.
func TestDatabaseIsSilentAtStart(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	s := newSite(t, "postgres://tasker:"+canary+"@"+l.Addr().String()+"/tasker?sslmode=disable", "TASKER__DATABASE__CONNECT_TIMEOUT=1s")
	requireRefusal(t, s, l.Addr().String())
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, nil)
	db := pgtest.Pool(t, c.DSN())
	hba := column[string](t, db, "show hba_file")[0]
	rules, err := os.ReadFile(hba)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(hba, append([]byte("local all app scram-sha-256\n"), rules...), 0o600))
	_, err = db.Exec(t.Context(), "create role app login password 'right'; select pg_reload_conf()", pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	u, err := url.Parse(c.DSN())
	require.NoError(t, err)
	u.User = url.UserPassword("app", canary)
	eventually(t, patience, "the server asks for the password", func() bool {
		conn, err := pgx.Connect(t.Context(), u.String())
		if err == nil {
			require.NoError(t, conn.Close(t.Context()))
		}
		return err != nil
	})
	requireRefusal(t, newSite(t, u.String()), "app", "password authentication failed")
}

func TestReadOnlyDatabaseAtStart(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	s := newSite(t, dsn)
	db := pgtest.Pool(t, dsn)
	_, err := db.Exec(t.Context(), "do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$")
	require.NoError(t, err)
	requireRefusal(t, s, "read-only")
}

func TestSchemaNewerThanBinary(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	db := pgtest.Pool(t, dsn)
	var newest int64
	require.NoError(t, db.QueryRow(t.Context(), `select max(version) from tasker_schema_migrations`).Scan(&newest))
	_, err := db.Exec(t.Context(), "insert into tasker_schema_migrations (version, name, checksum) select 99990, 'from_the_future', checksum from tasker_schema_migrations limit 1")
	require.NoError(t, err)
	for _, environment := range []string{"test", "production"} {
		s := newSite(t, dsn, "TASKER_ENV="+environment, "TASKER__SYSTEM__LOG_FORMAT=json")
		requireRefusal(t, s, "99990", fmt.Sprint(newest))
		r := s.tasker(t, "doctor")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.out, "99990")
	}
}

// small is a server with few connections.
func small(t *testing.T) *pgcluster.Cluster {
	t.Helper()
	return pgtest.Cluster(t, map[string]string{"max_connections": "16", "superuser_reserved_connections": "3"})
}

// take opens all connections that an ordinary user can have, and returns how to
// give them back.
func take(t *testing.T, dsn string) (giveBack func()) {
	t.Helper()
	var taken []*pgx.Conn
	for {
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			require.ErrorContains(t, err, "53300")
			break
		}
		taken = append(taken, conn)
	}
	return func() {
		for _, conn := range taken {
			require.NoError(t, conn.Close(context.WithoutCancel(t.Context())))
		}
		taken = nil
	}
}

// TestOutOfConnections: at start that is an error that says so; a host that runs
// goes on with those it has, and gets more when there are more.
func TestOutOfConnections(t *testing.T) {
	t.Parallel()
	c := small(t)
	giveBack := take(t, c.DSN())
	s := newSite(t, withPassword(t, c.DSN()))
	requireRefusal(t, s, "too many clients", "max_connections")
	giveBack()

	s.plugins(t, pluginTable("arithmetic", filepath.Join(built, "arithmetic"), ""))
	h := s.up(t)
	giveBack = take(t, c.DSN())
	applyExample(t, h, "arithmetic/templates/linear.yaml")
	for range 20 {
		require.Equal(t, vocab.TaskComplete, runTask(t, h, "linear_workflow", "mathematical_sequence", `{"even_number": 2}`).State)
	}
	giveBack()
	h.stop(t)
	requireClean(t, h.log.String())
}

// TestDatabaseLostAndBack: nothing is lost, nobody waits for ever, and the host
// goes on by itself.
func TestDatabaseLostAndBack(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, nil)
	// However long it is away here: the host's lease lasts longer.
	s := newSite(t, withPassword(t, c.DSN()), "TASKER__ORCHESTRATION__LEASE=20m")
	s.plugins(t, pluginTable("chaos", filepath.Join(built, "chaos"), ""))
	h := s.up(t)
	applyTemplate(t, h, oneStep("sleep", "chaos.sleep", ""))
	running := submit(t, h, "e2e", "sleep", `{"MS": 8000}`) // long enough to be seen
	awaitStep(t, h, running, vocab.StepInProgress)

	require.NoError(t, c.StopImmediate(t.Context()))
	eventually(t, patience, "the host says that it is not ready", func() bool {
		health, err := h.Ready(t.Context())
		return err == nil && health.Status == readmodel.HealthUnavailable
	})
	r := s.tasker(t, "task", "submit", "e2e/sleep", "--idempotency-key", "away", "--context", `{"MS": 1}`)
	require.Equal(t, 1, r.code, r.err)
	require.Contains(t, r.err, "database")
	_, _, err := h.Submit(t.Context(), client.Submission{Namespace: "e2e", Name: "sleep", IdempotencyKey: "away"})
	fault, ok := errors.AsType[*client.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, http.StatusServiceUnavailable, fault.Status)
	require.Positive(t, fault.RetryAfter)
	require.Equal(t, 1, s.tasker(t, "doctor").code)

	require.NoError(t, c.Restart(t.Context()))
	h.awaitReady(t)
	require.Equal(t, vocab.TaskComplete, settled(t, h, running).State)
	require.Equal(t, vocab.TaskComplete, runTask(t, h, "e2e", "sleep", `{"MS": 1}`).State)
	steps, err := h.Steps(t.Context(), running)
	require.NoError(t, err)
	require.Equal(t, 1, steps[0].Claims, "the step that ran meanwhile was not run again")
	h.stop(t)
	requireClean(t, h.log.String()+r.err)
}

// TestDatabaseTurnsReadOnly: as a primary that has become a standby.
func TestDatabaseTurnsReadOnly(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t, nil)
	s := newSite(t, withPassword(t, c.DSN()))
	s.plugins(t, pluginTable("chaos", filepath.Join(built, "chaos"), ""))
	h := s.up(t)
	applyTemplate(t, h, oneStep("sleep", "chaos.sleep", ""))
	running := submit(t, h, "e2e", "sleep", `{"MS": 1000}`)
	set := func(value string) {
		conn, err := pgx.Connect(t.Context(), with(t, c.DSN(), "default_transaction_read_only", "off"))
		require.NoError(t, err)
		_, err = conn.Exec(t.Context(), "alter system set default_transaction_read_only = "+value)
		require.NoError(t, err)
		_, err = conn.Exec(t.Context(), "select pg_reload_conf()")
		require.NoError(t, err)
		require.NoError(t, conn.Close(t.Context()))
	}
	set("on")
	eventually(t, patience, "the host says that it is not ready", func() bool {
		health, err := h.Ready(t.Context())
		return err == nil && health.Status == readmodel.HealthUnavailable
	})
	set("off")
	h.awaitReady(t)
	require.Equal(t, vocab.TaskComplete, settled(t, h, running).State)
	require.Equal(t, vocab.TaskComplete, runTask(t, h, "e2e", "sleep", `{"MS": 1}`).State)
	h.stop(t)
	requireClean(t, h.log.String())
}

// TestSessionsAreCut: an administrator ends the host's sessions, again and again.
func TestSessionsAreCut(t *testing.T) {
	t.Parallel()
	dsn := pgtest.DSN(t)
	db := pgtest.Pool(t, dsn)
	s := newSite(t, dsn)
	s.plugins(t, pluginTable("arithmetic", filepath.Join(built, "arithmetic"), ""))
	h := s.up(t)
	applyExample(t, h, "arithmetic/templates/mixed_dag.yaml")
	var ids []string
	cut := 0
	for i := range 60 {
		eventually(t, patience, "a submission is taken, if it is repeated", func() bool {
			task, _, err := h.Submit(t.Context(), client.Submission{
				Namespace: "mixed_dag_workflow", Name: "complex_dag_computation",
				Context: []byte(`{"even_number": 2}`), IdempotencyKey: fmt.Sprint(i),
			})
			if fault, ok := errors.AsType[*client.Error](err); ok {
				require.Equal(t, http.StatusServiceUnavailable, fault.Status)
				return false
			}
			require.NoError(t, err)
			ids = append(ids, task.UUID)
			return true
		})
		if i%10 == 5 {
			cut += column[int](t, db, `
select count(pg_terminate_backend(a.pid))::integer from pg_stat_activity a
 where a.datname = current_database() and a.application_name like 'tasker/%'`)[0]
		}
	}
	require.Positive(t, cut)
	for _, id := range ids {
		require.Equal(t, vocab.TaskComplete, settled(t, h, id).State)
	}
	h.signal(t, syscall.SIGTERM)
	require.Zero(t, h.await(t))
	requireClean(t, h.log.String())
}
