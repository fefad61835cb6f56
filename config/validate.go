package config

import (
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// maxSocketPath leaves room below the 108 bytes of a unix socket's address.
const maxSocketPath = 100

// reservedConnections are those that no committer may take: heartbeat, sweep,
// claims and the API.
const reservedConnections = 2

// Validate checks ranges and how the values fit together. Its error is an
// *Error with all problems. Load has called it; a Config made by hand may be
// checked by it.
func (c *Config) Validate() error { return c.validate().err() }

func (c *Config) validate() problems {
	var ps problems
	root := reflect.ValueOf(c).Elem()
	leaves := schemaOf(root.Type())
	for _, key := range leaves.keys() {
		value := root.FieldByIndex(leaves[key].index).Interface()
		if err := leaves[key].check(value); err != nil {
			ps.add(c.origins[key], key, "%v", err)
		}
	}
	for _, r := range c.rules() {
		if !r.holds {
			ps.add(c.origins[r.key], r.key, "%s", r.want)
		}
	}
	c.checkListen(&ps)
	return ps
}

// rule is something that must hold between values; key is the one to change.
type rule struct {
	key   string
	holds bool
	want  string
}

// rules are the time budgets and sizes that depend on each other. A lease must
// survive two lost heartbeats and the slowest statement, or live hosts lose
// their work; what frees a dead host's work must run well within a lease; and a
// host must be done before its supervisor kills it.
func (c *Config) rules() []rule {
	o, d := c.Orchestration, c.Database
	statement := d.StatementTimeout + d.LockTimeout
	return []rule{
		{
			"orchestration.heartbeat", o.Heartbeat <= o.Lease/3,
			sentence(o.Heartbeat, "must be at most a third of orchestration.lease", o.Lease),
		},
		{
			"orchestration.sweep_interval", o.SweepInterval <= o.Lease/6,
			sentence(o.SweepInterval, "must be at most a sixth of orchestration.lease", o.Lease),
		},
		{
			"database.statement_timeout", statement <= o.Lease/3,
			sentence(statement, "with database.lock_timeout must be at most a third of orchestration.lease", o.Lease),
		},
		{
			"database.connect_timeout", d.ConnectTimeout <= o.Lease/3,
			sentence(d.ConnectTimeout, "must be at most a third of orchestration.lease", o.Lease),
		},
		{
			"orchestration.dead_host_grace", o.DeadHostGrace <= o.Lease,
			sentence(o.DeadHostGrace, "must be at most orchestration.lease", o.Lease),
		},
		{
			"orchestration.poll_min", o.PollMin <= o.PollMax,
			sentence(o.PollMin, "must be at most orchestration.poll_max", o.PollMax),
		},
		{
			"orchestration.poll_max", o.PollMax <= o.Lease/3,
			sentence(o.PollMax, "must be at most a third of orchestration.lease", o.Lease),
		},
		{
			"orchestration.finalization_claim", o.FinalizationClaim >= 2*statement,
			sentence(o.FinalizationClaim, "must be at least twice database.statement_timeout + lock_timeout", statement),
		},
		{
			"pgmq.visibility_timeout", c.PGMQ.VisibilityTimeout >= 2*statement,
			sentence(c.PGMQ.VisibilityTimeout, "must be at least twice database.statement_timeout + lock_timeout", statement),
		},
		{
			"orchestration.drain_timeout", o.DrainTimeout+o.EmergencyTimeout <= o.SupervisorTimeout,
			sentence(o.DrainTimeout+o.EmergencyTimeout, "with orchestration.emergency_timeout must be at most orchestration.supervisor_timeout", o.SupervisorTimeout),
		},
		{
			"orchestration.step_results_queue", o.StepResultsQueue != o.TaskRequestsQueue,
			"must differ from orchestration.task_requests_queue",
		},
		{
			"engine.committers", c.Engine.Committers <= d.MaxConnections-reservedConnections,
			"must leave " + strconv.Itoa(reservedConnections) + " of the " + strconv.Itoa(d.MaxConnections) + " database.max_connections free",
		},
		{
			"system.socket", len(c.System.Socket) <= maxSocketPath,
			"a socket's path has at most " + strconv.Itoa(maxSocketPath) + " bytes: set a shorter one",
		},
	}
}

func sentence(have time.Duration, relation string, limit time.Duration) string {
	return have.String() + " " + relation + " (" + limit.String() + ")"
}

// checkListen refuses addresses that others can reach: requests are not
// authenticated.
func (c *Config) checkListen(ps *problems) {
	const key = "system.http_listen"
	if c.System.HTTPListen == "" {
		return
	}
	host, port, err := net.SplitHostPort(c.System.HTTPListen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		ps.add(c.origins[key], key, "%.60q is not an address: want host:port, such as 127.0.0.1:8080", c.System.HTTPListen)
		return
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if host != "localhost" && (err != nil || !ip.IsLoopback()) {
		ps.add(c.origins[key], key, "%.60q is not a loopback address: requests are not authenticated, so only this machine may send them", c.System.HTTPListen)
	}
}
