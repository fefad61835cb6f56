package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// maxSocketPath leaves room below the 108 bytes of a unix socket's address.
const maxSocketPath = 100

// reservedConnections is the number of connections that remain for the heartbeat, the
// sweep, claims and the API.
const reservedConnections = 2

// minAudit is the time for which the database refuses to delete audit entries.
const minAudit = 720 * time.Hour

// Validate checks ranges, and that the values fit together. Its error is an *Error with
// all problems. Load calls it; use it for a Config that was made by hand.
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
	for _, r := range append(c.rules(), c.poolRules()...) {
		if !r.holds {
			ps.add(c.origins[r.key], r.key, "%s", r.want)
		}
	}
	c.checkListen(&ps)
	if _, err := c.Orchestration.Retention.parse(); err != nil {
		ps.add(c.origins["orchestration.retention.namespaces"], "orchestration.retention.namespaces", "%v", err)
	}
	if _, err := c.ExecutorPools.StepExecution.parse(); err != nil {
		ps.add(c.origins["executor_pools.step_execution.namespaces"], "executor_pools.step_execution.namespaces", "%v", err)
	}
	c.Auth.check(c.origins, &ps)
	return ps
}

// rule is a condition on several values; key is the one to change.
type rule struct {
	key   string
	holds bool
	want  string
}

// rules are the time budgets and sizes that depend on each other. A lease must survive
// two lost heartbeats and the slowest statement, or live hosts lose their work; what
// frees a dead host's work must run well within a lease; and a host must have stopped
// before its supervisor kills it.
func (c *Config) rules() []rule {
	o, d := c.Orchestration, c.Database
	scaling, steps := c.ExecutorPools.Coordinator, c.ExecutorPools.StepExecution
	statement := d.StatementTimeout + d.LockTimeout
	return []rule{
		{
			"orchestration.heartbeat", o.Heartbeat <= o.Lease/3,
			shareOf(o.Heartbeat, 3, o.Lease),
		},
		{
			"orchestration.sweep_interval", o.SweepInterval <= o.Lease/6,
			shareOf(o.SweepInterval, 6, o.Lease),
		},
		{
			"database.statement_timeout", statement <= o.Lease/3,
			sum(d.StatementTimeout, "database.lock_timeout", d.LockTimeout) + " " + shareOf(statement, 3, o.Lease),
		},
		{
			"database.connect_timeout", d.ConnectTimeout <= o.Lease/3,
			shareOf(d.ConnectTimeout, 3, o.Lease),
		},
		{
			"orchestration.dead_host_grace", o.DeadHostGrace <= o.Lease,
			sentence(o.DeadHostGrace, "must be at most orchestration.lease", o.Lease),
		},
		{
			"orchestration.finalization_claim", o.FinalizationClaim >= 2*statement,
			twice(o.FinalizationClaim, d),
		},
		{
			"pgmq.visibility_timeout", c.PGMQ.VisibilityTimeout >= 2*statement,
			twice(c.PGMQ.VisibilityTimeout, d),
		},
		{
			"orchestration.drain_timeout", o.DrainTimeout+o.EmergencyTimeout <= o.SupervisorTimeout,
			sum(o.DrainTimeout, "orchestration.emergency_timeout", o.EmergencyTimeout) + " " +
				sentence(o.DrainTimeout+o.EmergencyTimeout, "must be at most orchestration.supervisor_timeout", o.SupervisorTimeout),
		},
		{
			"orchestration.retention.audit", o.Retention.Audit == 0 || o.Retention.Audit >= minAudit,
			sentence(o.Retention.Audit, "is too short: want 0s (kept forever) or at least 30 days", minAudit),
		},
		{
			"orchestration.step_results_queue", o.StepResultsQueue != o.TaskRequestsQueue,
			"must differ from orchestration.task_requests_queue",
		},
		{
			"executor_pools.coordinator.stale", scaling.Stale >= 2*scaling.Interval,
			sentence(scaling.Stale, "must be at least twice executor_pools.coordinator.interval", scaling.Interval),
		},
		atLeastMin("step_execution", steps.Min, steps.Max),
		{
			c.ownerOfSocket(), len(c.System.Socket) <= maxSocketPath,
			"the path of a socket may have at most " + strconv.Itoa(maxSocketPath) + " bytes, but " + c.System.Socket + " has " +
				strconv.Itoa(len(c.System.Socket)) + ": choose a shorter one",
		},
	}
}

// ownerOfSocket is the key that decides where the socket is.
func (c *Config) ownerOfSocket() string {
	if origin, ok := c.origins["system.socket"]; ok && !strings.HasPrefix(origin.Source, "built-in ") {
		return "system.socket"
	}
	return "system.state_dir" // the layers left it empty
}

// poolRules are the rules for pools whose executors take turns.
func (c *Config) poolRules() []rule {
	p := &c.ExecutorPools
	statement := c.Database.StatementTimeout + c.Database.LockTimeout
	var all []rule
	add := func(name string, low, high int, turn time.Duration) {
		all = append(all, atLeastMin(name, low, high), rule{
			"executor_pools." + name + ".min", low <= c.Database.MaxConnections-reservedConnections,
			"must leave " + strconv.Itoa(reservedConnections) + " of the " + strconv.Itoa(c.Database.MaxConnections) + " database.max_connections free",
		}, rule{
			"executor_pools." + name + ".turn_timeout", turn >= 2*statement, twice(turn, c.Database),
		})
	}
	for name, e := range map[string]*Executors{"step_enqueuer": &p.StepEnqueuer, "task_finalizer": &p.TaskFinalizer} {
		add(name, e.Min, e.Max, e.TurnTimeout)
	}
	for name, r := range map[string]*Readers{
		"task_request_processor": &p.TaskRequestProcessor, "task_claimer": &p.TaskClaimer, "step_result_processor": &p.StepResultProcessor,
	} {
		add(name, r.Min, r.Max, r.TurnTimeout)
		key := "executor_pools." + name + ".poll_max"
		all = append(all, rule{
			"executor_pools." + name + ".poll_min", r.PollMin <= r.PollMax, sentence(r.PollMin, "must be at most "+key, r.PollMax),
		}, rule{
			key, r.PollMax <= c.Orchestration.Lease/3, shareOf(r.PollMax, 3, c.Orchestration.Lease),
		})
	}
	return all
}

func atLeastMin(pool string, low, high int) rule {
	key := "executor_pools." + pool
	return rule{key + ".max", high >= low, "must be at least " + key + ".min (" + strconv.Itoa(low) + ")"}
}

// shareOf says that a time must be at most a share of the lease, with the calculation.
func shareOf(have time.Duration, share int, lease time.Duration) string {
	names := map[int]string{3: "third", 6: "sixth"}
	return fmt.Sprintf("%s must be at most a %s of orchestration.lease (%s / %d = %s)", have, names[share], lease, share, lease/time.Duration(share))
}

// twice says that a time must be long enough for a statement and its repetition.
func twice(have time.Duration, d Database) string {
	return fmt.Sprintf("%s must be at least twice database.statement_timeout + lock_timeout (2 × (%s + %s) = %s)",
		have, d.StatementTimeout, d.LockTimeout, 2*(d.StatementTimeout+d.LockTimeout))
}

// sum starts the message about the sum of two keys.
func sum(own time.Duration, other string, value time.Duration) string {
	return fmt.Sprintf("%s + %s of %s =", own, value, other)
}

func sentence(have time.Duration, relation string, limit time.Duration) string {
	return have.String() + " " + relation + " (" + limit.String() + ")"
}
