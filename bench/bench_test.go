package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// started is the server that the tests share.
var started *server

func TestMain(m *testing.M) {
	code, err := withServer(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withServer(f func() int) (code int, err error) {
	ctx := context.Background()
	base, err := os.MkdirTemp("", "tasker-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(base)
	if err := os.Chmod(base, 0o755); err != nil { // the server's account must be able to enter
		return 0, err
	}
	if started, err = startServer(ctx, filepath.Join(base, "pg"), ""); err != nil {
		return 0, err
	}
	code = f()
	return code, started.stop(ctx)
}

// handful is a load of this many jobs.
var handful = intensity{steps: 32, chunk: 4, feeders: 2}

// What a peer reports as done, its tables confirm: every step of every job, once.
func TestPeersDoWhatIsCounted(t *testing.T) {
	const (
		riverDone = "select count(*) filter (where state = 'completed'), count(*) from river_job"
		dbosDone  = `select (select count(*) from dbos.workflow_status where status = 'SUCCESS') * $1::int,
		                    case $1::int when 1 then (select count(*) from dbos.workflow_status)
		                    else (select count(*) from dbos.operation_outputs) end`
	)
	for _, c := range contenders() {
		pt, ok := c.turn.(peerTurn)
		if !ok || strings.Contains(c.setting, "default") { // differs from tuned only in numbers, and is slow
			continue
		}
		for _, sh := range c.shapes {
			t.Run(strings.Join([]string{c.name, c.setting, sh.name}, ", "), func(t *testing.T) {
				t.Parallel()
				ctx, fail := context.WithCancelCause(t.Context())
				defer fail(nil)
				url, drop, err := started.database(ctx)
				must(t, err)
				defer func() { must(t, drop()) }()
				tr := newTracker(handful.window(sh), fail)
				e, err := pt.start(ctx, url, sh, tr)
				must(t, err)
				l, err := load(ctx, e, tr, handful, time.Nanosecond)
				must(t, err)
				if l.works < handful.chunk*handful.feeders {
					t.Errorf("%d works, want %d at least", l.works, handful.chunk*handful.feeders)
				}
				all, err := latency(ctx, e, tr, 1, 0)
				must(t, err)
				if len(all) != 1 || all[0] <= 0 {
					t.Errorf("latencies %v, want one", all)
				}
				must(t, stop(ctx, e)) // after recording what is in progress
				conn, err := pgx.Connect(ctx, url)
				must(t, err)
				defer conn.Close(context.WithoutCancel(ctx))
				query, args := riverDone, []any(nil)
				if c.name == "DBOS" {
					query, args = dbosDone, []any{sh.steps}
				}
				var done, steps int
				must(t, conn.QueryRow(ctx, query, args...).Scan(&done, &steps))
				if want := (l.works + 1) * sh.steps; done != want || steps != want {
					t.Errorf("%d steps are done of %d in the database, want %d", done, steps, want)
				}
			})
		}
	}
}

// A whole turn, with the jobs inserted first, on a given server.
func TestBurnDown(t *testing.T) {
	given, err := startServer(t.Context(), "", started.url)
	must(t, err)
	defer func() { must(t, given.stop(t.Context())) }()
	for _, c := range contenders() {
		if _, ok := c.turn.(burnDown); ok {
			r, err := c.take(t.Context(), given, single, plan{steps: 20})
			must(t, err)
			if r.stepsPerSecond <= 0 || r.walPerStep <= 0 || r.cpuPerStep <= 0 || r.samples != 0 {
				t.Errorf("result %+v", r)
			}
			return
		}
	}
	t.Error("nobody burns down")
}

// River's own program, if it exists, is called as its documentation says.
func TestRiverBench(t *testing.T) {
	program := filepath.Join(t.TempDir(), "river")
	must(t, os.WriteFile(program, []byte(`#!/bin/sh
case "$*" in
"migrate-up --database-url postgres://somewhere") : >"$0.migrated" ;;
"bench --database-url postgres://somewhere --num-total-jobs 500") test -e "$0.migrated" && echo "overall job/sec [    31234.5 ]" ;;
*) echo "called with $*" >&2; exit 1 ;;
esac
`), 0o700))
	r, err := riverBench{program}.measure(t.Context(), started, "postgres://somewhere", single, plan{steps: 500})
	must(t, err)
	if r.stepsPerSecond != 31234.5 {
		t.Errorf("rate %v", r.stepsPerSecond)
	}
	if _, err := (riverBench{program}).measure(t.Context(), started, "postgres://elsewhere", single, plan{}); err == nil || !strings.Contains(err.Error(), "called with") {
		t.Errorf("error %v, want what the program said", err)
	}
}

func TestRiverBenchRate(t *testing.T) {
	const said = "bench: jobs worked [      10000 ], inserted [          0 ], job/sec [     5000.0 ] [2s]\n" +
		"bench: total jobs worked [      80000 ], total jobs inserted [      80000 ], overall job/sec [    31234.5 ], running 2.56s\n"
	got, err := riverBenchRate(said)
	must(t, err)
	if got != 31234.5 {
		t.Errorf("rate %v", got)
	}
	if _, err := riverBenchRate("bench: job/sec [ 1.0 ]"); err == nil {
		t.Error("no rate is no error")
	}
}

func TestReport(t *testing.T) {
	host := contender{name: "Tasker Host", setting: "as shipped", how: "as it is"}
	peer := contender{name: "River", setting: "tuned", how: "hurried"}
	at := func(rate, ms float64) result {
		return result{stepsPerSecond: rate, walPerStep: 1000, cpuPerStep: 50, p50: ms, p99: 2 * ms, samples: 9}
	}
	r := report{
		rows: []*row{
			{host, chain, []result{at(30000, 5), at(10000, 15), at(33000, 5)}},
			{peer, chain, []result{at(3000, 10), at(1000, 30), at(3000, 8)}},
			{host, single, []result{at(20000, 4)}},
			{peer, single, []result{{stepsPerSecond: 25000}}},
		},
		setting: setting{CPUs: 2, CPU: "Some  CPU", MemoryBytes: 24 << 30, Database: map[string]string{"server_version": "15.18 (Debian 15.18-0)", "fsync": "on"}},
		busy:    "0.10", at: time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC),
	}
	got := r.markdown()
	for _, want := range []string{
		"### 29 November 2026: peers",
		"2 × Some CPU, 24 GiB, load 0.10 at the start",
		"PostgreSQL 15.18 on the same machine\n(fsync on",
		"| Tasker Host | as shipped | 30,000 (10,000 to 33,000) | 1.0 | 5.0 / 10.0 | 1.0 | 1,000 | 50 |",
		"| River | tuned | 3,000 (1,000 to 3,000) | 10 | 10.0 / 20.0 | 2.0 | 1,000 | 50 |", // round by round, even if a round was slow
		"| River | tuned | 25,000 (25,000 to 25,000) | 0.80 | – | – | – | – |",
		"- River, tuned: hurried\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Count(got, "hurried") != 1 {
		t.Errorf("a note is there twice:\n%s", got)
	}
}

func TestPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	must(t, os.WriteFile(path, []byte("before\n"+pageBegin+"old\n"+pageEnd+"after\n"), 0o600))
	must(t, checkPage(path))
	for range 2 {
		must(t, writePage(path, "new\n"))
	}
	page, err := os.ReadFile(path)
	must(t, err)
	if want := "before\n" + pageBegin + "\nnew\n\n" + pageEnd + "after\n"; string(page) != want {
		t.Errorf("page %q, want %q", page, want)
	}
	must(t, os.WriteFile(path, []byte(pageBegin), 0o600))
	if checkPage(path) == nil {
		t.Error("a page without an end mark is accepted")
	}
	must(t, checkPage(filepath.Join("..", "docs", "benchmarks.md")))
}

func TestField(t *testing.T) {
	var got []string
	for _, r := range field(regexp.MustCompile("River, tuned")) {
		got = append(got, r.shape.name+" "+r.name+" "+r.setting)
	}
	want := []string{
		"chain Tasker Host as shipped", "chain River tuned, in transactions", "chain River tuned",
		"single Tasker Host as shipped", "single River tuned, in transactions", "single River tuned",
	}
	if !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
