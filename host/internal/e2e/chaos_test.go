package e2e_test

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/plugins/test/ledger/book"
)

const (
	openLoad  = 500 // tasks that are open while a fault strikes
	lease     = 4500 * time.Millisecond * slower
	statement = 1200 * time.Millisecond * slower
	locking   = 300 * time.Millisecond * slower
	grace     = 500 * time.Millisecond
	sweepTime = 300 * time.Millisecond
	quickest  = 1500 * time.Millisecond // a step takes no shorter
	slowest   = 2500 * time.Millisecond // … and no longer: 500 open tasks are some 60 each second
)

// quick is the configuration of hosts whose failures are found soon.
func quick() []string {
	return []string{
		"TASKER__ORCHESTRATION__LEASE=" + lease.String(),
		"TASKER__ORCHESTRATION__DEAD_HOST_GRACE=" + grace.String(),
		"TASKER__ORCHESTRATION__SWEEP_INTERVAL=" + sweepTime.String(),
		"TASKER__ORCHESTRATION__HEARTBEAT=500ms",
		"TASKER__ORCHESTRATION__FINALIZATION_CLAIM=" + lease.String(),
		"TASKER__DATABASE__STATEMENT_TIMEOUT=" + statement.String(),
		"TASKER__DATABASE__LOCK_TIMEOUT=" + locking.String(),
		"TASKER__DATABASE__CONNECT_TIMEOUT=" + (statement + locking).String(),
		"TASKER__PGMQ__VISIBILITY_TIMEOUT=" + lease.String(),
		"TASKER__CIRCUIT_BREAKERS__PLUGIN_CRASH_LOOP__FAILURES=1000",
	}
}

// ground is where chaos takes place: two hosts with the ledger plugin on one
// database of their own server.
type ground struct {
	cluster *pgcluster.Cluster
	proxy   *proxy // between the hosts and the cluster
	db      *pgxpool.Pool
	book    string // the directory of the ledger
	sites   []*site
	hosts   []*host // of the sites, now
	gone    []*host // those that were killed
}

func newGround(t *testing.T, p pace, more ...string) *ground {
	t.Helper()
	g := &ground{cluster: pgtest.Cluster(t, nil), book: filepath.Join(t.TempDir(), "book")}
	g.db = oraclePool(t, g.cluster.DSN())
	g.proxy = newProxy(t, socketDir(t, g.cluster.DSN()))
	for range 2 {
		s := newSite(t, with(t, withPassword(t, g.cluster.DSN()), "host", g.proxy.dir), append(quick(), more...)...)
		s.plugins(t, fmt.Sprintf("[plugin.handler.ledger]\npath = %q\nmax_in_flight = 1000\nstart_timeout = \"2m\"\noptions = { dir = %q }\n",
			filepath.Join(built, "ledger"), g.book))
		g.sites = append(g.sites, s)
		g.hosts = append(g.hosts, s.start(t))
	}
	for _, h := range g.hosts {
		h.awaitReady(t)
	}
	for name := range shapes {
		_, _, err := g.hosts[0].ApplyTemplate(t.Context(), name+".yaml", template(name, p))
		require.NoError(t, err)
	}
	return g
}

// oraclePool opens connections for the oracle, whose queries look at everything:
// plans made for young tables that nobody has counted yet must not take hours.
func oraclePool(t *testing.T, dsn string) *pgxpool.Pool {
	t.Helper()
	return pgtest.Pool(t, with(t, dsn, "enable_nestloop", "off", "work_mem", "64MB"))
}

// withPassword adds a password, which nobody asks for, to a URL.
func withPassword(t *testing.T, dsn string) string { return with(t, dsn, "password", canary) }

// socketDir is the directory of the socket in a URL.
func socketDir(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	return u.Query().Get("host")
}

// with adds parameters to a URL.
func with(t *testing.T, dsn string, pairs ...string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	query := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	u.RawQuery = query.Encode()
	return u.String()
}

func (g *ground) evidence(t *testing.T, s *submitter) evidence {
	t.Helper()
	entries, keys, err := book.Read(g.book)
	require.NoError(t, err)
	var logs strings.Builder
	for _, h := range append(g.gone, g.hosts...) {
		logs.WriteString(h.log.String())
	}
	return evidence{tasks: s.tasks, entries: entries, keys: keys, logs: logs.String()}
}

// held is a step under a lease.
type held struct {
	Task    string
	Step    int
	LeaseNo int
}

// inFlight returns the steps that are leased to a host, or to any for pid 0.
func (g *ground) inFlight(t *testing.T, pid int) []held {
	t.Helper()
	return structs[held](t, g.db, `
select s.task_uuid::text as task, s.step_no as step, s.lease_no
  from tasker_tasks t
  join tasker_workflow_steps s on s.task_uuid = t.task_uuid
  join tasker_hosts h on h.host_id = s.lease_host
 where t.state = 'in_progress' and s.state = 'in_progress' and h.state = 'normal' and ($1 = 0 or h.name like '%/' || $1::text)`, pid)
}

// stranded counts those that have neither come to an outcome nor been claimed
// anew, and are not told to wait. A database that is away has not helped anybody.
func (g *ground) stranded(ctx context.Context, steps []held) int {
	tasks, numbers, leases := make([]string, len(steps)), make([]int, len(steps)), make([]int, len(steps))
	for i, s := range steps {
		tasks[i], numbers[i], leases[i] = s.Task, s.Step, s.LeaseNo
	}
	n := len(steps)
	if err := g.db.QueryRow(ctx, `
select count(*) from unnest($1::uuid[], $2::integer[], $3::integer[]) u(task_uuid, step_no, lease_no)
  join tasker_workflow_steps s on s.task_uuid = u.task_uuid and s.step_no = u.step_no
  left join pgmq.q_chaos_queue q on q.message ->> 'step_uuid' = tasker_step_uuid(s.task_uuid, s.step_no)::text
 where s.lease_no = u.lease_no
   and (s.state = 'in_progress' or s.state = 'enqueued' and coalesce(q.vt, '-infinity') < clock_timestamp())`, tasks, numbers, leases).Scan(&n); err != nil {
		return len(steps)
	}
	return n
}

// fault is a kind of trouble. strike returns the steps it hit; heal ends the
// trouble, from when on recovery is measured unless it is measured from the
// strike.
type fault struct {
	name     string
	bound    time.Duration
	fromHeal bool // recovery is measured from the end of the trouble
	cuts     bool // it ends handlers in the middle
	mayCut   bool // it may do so
	strike   func(t *testing.T, g *ground, round int) []held
	heal     func(t *testing.T, g *ground, round int)
}

func faults() []fault {
	const slack = 6 * time.Second * slower // for a machine with two cores that is busy
	return []fault{
		{
			name: "host_kill", cuts: true, bound: lease + grace + 2*sweepTime + slowest + slack,
			strike: func(t *testing.T, g *ground, round int) []held {
				victim := g.hosts[round%2]
				hit := g.inFlight(t, victim.pid())
				victim.kill(t)
				g.gone = append(g.gone, victim)
				eventually(t, patience, "the plugins of a killed host are gone", func() bool {
					return len(processesOf(t, victim.site.dir)) == 0
				})
				return hit
			},
			heal: func(t *testing.T, g *ground, round int) { g.hosts[round%2] = g.sites[round%2].start(t) },
		},
		{
			name: "plugin_kill", cuts: true, bound: slowest + slack,
			strike: func(t *testing.T, g *ground, round int) []held {
				victim := g.hosts[round%2]
				hit := g.inFlight(t, victim.pid())
				plugins := processesOf(t, victim.site.dir)
				require.Len(t, plugins, 1)
				for pid := range plugins {
					require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
				}
				return hit
			},
			heal: func(*testing.T, *ground, int) {},
		},
		{
			name: "postgres_stop", bound: slowest + slack, fromHeal: true,
			strike: func(t *testing.T, g *ground, _ int) []held {
				hit := g.inFlight(t, 0)
				require.NoError(t, g.cluster.StopImmediate(t.Context()))
				return hit
			},
			heal: func(t *testing.T, g *ground, _ int) { require.NoError(t, g.cluster.Restart(t.Context())) },
		},
		{
			// Every connection of every host is cut, before the server hears what it is
			// asked for or after it has committed that.
			name: "commit_cut", mayCut: true, bound: lease + slowest + slack, fromHeal: true,
			strike: func(t *testing.T, g *ground, round int) []held {
				how := losesReplies
				if round%2 == 1 {
					how = losesRequests
				}
				before := g.proxy.lost[how].Load()
				g.proxy.mood.Store(int32(how))
				eventually(t, patience, "connections are cut", func() bool { return g.proxy.lost[how].Load() >= before+20 })
				g.proxy.mood.Store(int32(honest))
				return g.inFlight(t, 0)
			},
			heal: func(*testing.T, *ground, int) {},
		},
		{
			// A host stands still for longer than its lease, is declared dead, and goes on
			// as if nothing had been.
			name: "host_freeze", mayCut: true, bound: slowest + slack, fromHeal: true,
			strike: func(t *testing.T, g *ground, round int) []held {
				victim := g.hosts[round%2]
				hit := g.inFlight(t, victim.pid())
				victim.signal(t, syscall.SIGSTOP)
				eventually(t, lease+grace+2*sweepTime+slack+late, "the other host has taken over", func() bool {
					return g.stranded(t.Context(), hit) == 0
				})
				return hit
			},
			heal: func(t *testing.T, g *ground, round int) { g.hosts[round%2].signal(t, syscall.SIGCONT) },
		},
	}
}

// TestChaos kills hosts, plugins and PostgreSQL in the middle of 500 running
// tasks, several times each, and requires that all ends well.
func TestChaos(t *testing.T) {
	t.Parallel() // but one trouble at a time: each wants half of the machine
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) { chaos(t, f) })
	}
}

func chaos(t *testing.T, f fault) {
	g := newGround(t, pace{int(quickest.Milliseconds()), int(slowest.Milliseconds())})
	s := newSubmitter(g.sites[0].client(t), g.sites[1].client(t))
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	wg.Go(func() { s.keepOpen(ctx, g.db, openLoad) })

	var recovery time.Duration
	struck := 0
	for round := range rounds {
		g.awaitLoad(t)
		began := time.Now()
		hit := f.strike(t, g, round)
		require.NotEmpty(t, hit, "round %d hit nothing", round)
		struck += len(hit)
		f.heal(t, g, round)
		if f.fromHeal {
			began = time.Now()
		}
		healed := poll(t.Context(), f.bound+late, func() bool { return g.stranded(t.Context(), hit) == 0 })
		took := time.Since(began)
		require.True(t, healed, "round %d: %d of %d steps are stranded after %s (bound %s)", round, g.stranded(t.Context(), hit), len(hit), took, f.bound)
		if took > f.bound {
			t.Logf("round %d: later than the bound of %s", round, f.bound)
		}
		recovery = max(recovery, took)
		t.Logf("round %d: %d steps hit, all going on after %s", round, len(hit), took)
		snapshot(t, g.db).require(t)
	}
	stop()
	wg.Wait()
	v := g.rest(t, s)
	t.Logf("%d steps were hit, %d submissions were of unknown fate", struck, s.unknown)
	t.Log(v.figures(f.name, rounds, recovery, f.bound))
	v.require(t)
	if !f.mayCut {
		require.Equal(t, f.cuts, v.cut > 0, "%d attempts were cut off", v.cut)
	}
	g.depart(t)
}

// awaitLoad waits until both hosts are up and 500 tasks are running, with steps
// on each host.
func (g *ground) awaitLoad(t *testing.T) {
	t.Helper()
	for _, h := range g.hosts {
		h.awaitReady(t)
	}
	eventually(t, patience, fmt.Sprintf("%d tasks are running", openLoad), func() bool {
		n, err := openTasks(t.Context(), g.db)
		return err == nil && n >= openLoad*9/10
	})
	for _, h := range g.hosts {
		eventually(t, patience, "the host has work", func() bool { return len(g.inFlight(t, h.pid())) >= 20 })
	}
}

// rest waits until all has come to rest, and judges it.
func (g *ground) rest(t *testing.T, s *submitter) *verdict {
	t.Helper()
	for _, h := range g.hosts {
		h.awaitReady(t)
	}
	s.resolve(t)
	quiet := func() bool {
		var n int
		err := g.db.QueryRow(t.Context(), `
select (select count(*) from tasker_tasks t where t.state in ('pending', 'in_progress')) + (select count(*) from pgmq.q_chaos_queue)`).Scan(&n)
		return err == nil && n == 0
	}
	if !poll(t.Context(), lease+grace+patience/2, quiet) {
		t.Log("not everything has come to rest")
	}
	return judge(t, g.db, g.evidence(t, s))
}

// depart stops the hosts, which must leave nothing behind.
func (g *ground) depart(t *testing.T) {
	t.Helper()
	for _, h := range g.hosts {
		require.Len(t, processesOf(t, h.site.dir), 1, "one plugin process for a host")
		require.Zero(t, zombiesOf(t, h.pid()), "zombies of a host")
	}
	for _, h := range g.hosts {
		h.stop(t)
		require.Empty(t, processesOf(t, h.site.dir), "orphans of a host")
	}
	var sessions int
	eventually(t, patience, "the hosts' sessions are gone", func() bool {
		err := g.db.QueryRow(t.Context(), `select count(*) from pg_stat_activity a where a.application_name like 'tasker/%'`).Scan(&sessions)
		return err == nil && sessions == 0
	})
}
