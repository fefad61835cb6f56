package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// rubyWorker starts the worker of plugins/workers/ruby.
func rubyWorker(t *testing.T, env ...string) (kill func(), log *output) {
	t.Helper()
	script, err := filepath.Abs("../../../plugins/workers/ruby/worker.rb")
	require.NoError(t, err)
	log = &output{}
	cmd := exec.Command("ruby", script)
	cmd.Env, cmd.Stdout, cmd.Stderr = append([]string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"}, env...), log, log
	require.NoError(t, launch(cmd), "ruby and its gem pg are needed: deploy/prepare.sh ruby")
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	kill = func() { _ = cmd.Process.Kill(); <-done }
	t.Cleanup(func() {
		kill()
		if t.Failed() {
			t.Logf("the last words of the worker:\n%s", tail(log.String(), 2000))
		}
	})
	return kill, log
}

// TestRubyWorker: a worker outside of the host, with a role that may do nothing
// else, runs an example workflow to its last digit, though it is killed in the
// middle of a step.
func TestRubyWorker(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	h := newSite(t, pool.Config().ConnString()).up(t)
	const path = "../../../plugins/examples/arithmetic/templates/mixed_dag.yaml"
	source, err := os.ReadFile(path)
	require.NoError(t, err)
	template, _, err := h.ApplyTemplate(t.Context(), path, source)
	require.NoError(t, err)
	role := fmt.Sprintf("ruby_worker_%d", time.Now().UnixNano())
	exec := func(sql string) {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	exec("create role " + role)
	t.Cleanup(func() {
		_, err := pool.Exec(t.Context(), "drop owned by "+role+"; drop role "+role)
		if err != nil && t.Context().Err() == nil {
			t.Errorf("drop the worker's role: %v", err)
		}
	})
	exec("select tasker_grant_worker('" + role + "', '" + template.Namespace + "')")
	env := []string{"DATABASE_URL=" + pool.Config().ConnString(), "PGOPTIONS=-c role=" + role, "TASKER_NAMESPACE=" + template.Namespace}

	// The first worker can claim, but not settle: settling reads the policy.
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "lock table tasker_worker_policy in access exclusive mode")
	require.NoError(t, err)
	kill, _ := rubyWorker(t, append(env, "TASKER_WORKER=first", "TASKER_LEASE=2")...)
	task, _, err := h.Submit(t.Context(), client.Submission{
		Namespace: template.Namespace, Name: template.Name, Version: template.Version, Context: json.RawMessage(`{"even_number": 4}`),
	})
	require.NoError(t, err)
	eventually(t, patience, "the worker is in the middle of the first step", func() (waits bool) {
		err := pool.QueryRow(t.Context(), `
select exists (select from pg_stat_activity where datname = current_database() and query like '%tasker_worker_next%' and wait_event_type = 'Lock' and pid <> pg_backend_pid())`).Scan(&waits)
		require.NoError(t, err)
		return waits
	})
	kill()
	exec(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query like '%tasker_worker_next%' and pid <> pg_backend_pid()`)
	require.NoError(t, tx.Rollback(t.Context()))

	rubyWorker(t, append(env, "TASKER_WORKER=second", "TASKER_LEASE=60")...)
	eventually(t, patience, "the task ends", func() bool {
		now, err := h.Task(t.Context(), task.UUID)
		require.NoError(t, err)
		return !now.State.Active()
	})
	steps, err := h.Steps(t.Context(), task.UUID)
	require.NoError(t, err)
	for i, s := range steps {
		require.Equal(t, vocab.StepComplete, s.State, s.Name)
		require.Equal(t, 1, s.Attempts, s.Name)
		require.Equal(t, map[bool]int{true: 2, false: 1}[i == 0], s.Claims, s.Name)
	}
	require.Equal(t, "340282366920938463463374607431768211456", string(steps[len(steps)-1].Result)) // 2^128

	var workers readmodel.WorkerPage
	eventually(t, patience, "the lost lease is counted", func() bool {
		workers, err = h.Workers(t.Context())
		require.NoError(t, err)
		return len(workers.Items) == 2 && workers.Items[1].Lost == 1
	})
	require.Equal(t, "second", workers.Items[0].Name)
	require.EqualValues(t, len(steps), workers.Items[0].Done)
	require.Zero(t, workers.Items[0].Leases+workers.Items[1].Leases)
}

// TestWorkerCheck: the check finds nothing wrong with the Ruby worker, and what
// is wrong with one that was written in a hurry, in words.
func TestWorkerCheck(t *testing.T) {
	t.Parallel()
	good, err := filepath.Abs("../../../plugins/workers/ruby/worker.rb")
	require.NoError(t, err)
	bad, err := filepath.Abs("testdata/bad_worker.rb")
	require.NoError(t, err)
	place := func(t *testing.T) *site {
		t.Parallel()
		s := newSite(t, "")
		require.NoError(t, os.Chmod(s.dir, 0o711)) // the server's account passes through
		return s
	}
	check := func(t *testing.T, s *site, patient string, command ...string) (int, readmodel.WorkerReport) {
		t.Helper()
		got := s.taskerWithin(t, 5*patience, append([]string{"worker", "check", "--json", "--patience", patient, "--"}, command...)...)
		var report readmodel.WorkerReport
		require.NoError(t, json.Unmarshal([]byte(got.out), &report), got.err)
		return got.code, report
	}
	t.Run("good", func(t *testing.T) {
		s := place(t)
		for range 2 { // the second meets what the first has left
			code, report := check(t, s, "60s", "ruby", good)
			for _, c := range report.Checks {
				require.Empty(t, c.Complaint, c.Name)
			}
			require.Zero(t, code)
			require.Len(t, report.Checks, 12)
		}
		code, report := check(t, s, "1s", "sleep", "1000")
		require.Equal(t, 1, code)
		require.Len(t, report.Checks, 1, "another worker was there before, not this one")
		require.Contains(t, report.Checks[0].Complaint, "asked for no step")
	})
	t.Run("bad", func(t *testing.T) {
		code, report := check(t, place(t), "12s", "ruby", bad)
		require.Equal(t, 1, code)
		complaints := map[string]string{}
		for _, c := range report.Checks {
			if !c.Passed {
				complaints[c.Name] = c.Complaint
			}
		}
		for name, words := range map[string]string{
			"numbers": "sent [0.1, 1234567890.12345678901234567890", "dependencies": "2^128 + 2^128 gave", "permanent": "was tried 3 times",
			"poison": "exited on its own", "heartbeat": "claimed", "cancel": "stop a step when tasker_worker_heartbeat returns cancel_requested",
			"lease_lost": "exited on its own", "stop": "call tasker_worker_release",
		} {
			require.Contains(t, complaints[name], words, name)
			delete(complaints, name)
		}
		require.Empty(t, complaints, "what it does right is no complaint")
		require.False(t, strings.Contains(fmt.Sprint(report), canary))
	})
}
