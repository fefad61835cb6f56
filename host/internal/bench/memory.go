package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Apart is a host in a separate process.
type Apart struct {
	PID  int
	Gone <-chan struct{} // closed if it has ended
	Stop func() error
}

var errHostGone = errors.New("the host exited; see its messages above")

// memory measures the memory of a host at rest and with many tasks in flight. The load
// comes through the request queue, as from a user's transaction, so that the load
// generator is in this process and the host in another.
//
// A task is in flight from its creation to its end. To have all in flight at once,
// the namespace is paused while they are created; then the host works through them
// at full load. The peak covers all of that.
func (m *measurement) memory() error {
	host, err := m.Apart(m.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = host.Stop() }() // everything has been measured
	outer := m.ctx
	ctx, cancel := context.WithCancelCause(outer)
	m.ctx = ctx
	go func() {
		select {
		case <-host.Gone:
			cancel(errHostGone)
		case <-ctx.Done():
		}
	}()
	err = m.restAndFly(host.PID)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	cancel(nil)
	m.ctx = outer
	return err
}

// restAndFly measures a host that has worked a little, then rests, then works a lot.
func (m *measurement) restAndFly(pid int) error {
	if err := m.up(pid); err != nil {
		return err
	}
	if err := m.request("work", min(m.options.Tasks, 50)); err != nil {
		return err
	}
	if err := m.unfinished("work", 0); err != nil {
		return err
	}
	for i := range idleLooks {
		if err := m.rest(m.options.Duration / idleLooks); err != nil {
			return err
		}
		m.options.Progress("rest", i+1, idleLooks)
	}
	r := &m.report
	if r.RestMemoryBytes = residentMemory(pid); r.RestMemoryBytes == 0 {
		return errors.New("this system does not report the memory of a process (no /proc)")
	}
	if err := m.fly(); err != nil {
		return err
	}
	r.InFlightMemoryBytes = peakMemoryOf(pid)
	r.Tasks, r.Steps, r.InFlight = m.options.Tasks, m.options.Tasks*m.shape.Steps, m.options.Tasks
	return nil
}

// up waits until the host in the process works.
func (m *measurement) up(pid int) error {
	const sqlUp = `
select exists (select from tasker_hosts
                where state = 'normal' and alive_until > clock_timestamp() and right(name, length($1::text)) = $1::text)`
	for {
		var is bool
		if err := m.Pool.QueryRow(m.ctx, sqlUp, fmt.Sprintf("/%d", pid)).Scan(&is); err != nil || is {
			return err
		}
		if err := m.rest(unfinishedLooks); err != nil {
			return err
		}
	}
}

// fly lets all tasks be created before the first one starts, and then run to their end.
func (m *measurement) fly() (err error) {
	began := time.Now()
	if err := m.Pause(m.ctx, true); err != nil {
		return err
	}
	resume := func() error { return m.Pause(context.WithoutCancel(m.ctx), false) }
	if err := errors.Join(m.request("create", m.options.Tasks), m.unfinished("create", m.options.Tasks)); err != nil {
		return errors.Join(err, resume())
	}
	if err := resume(); err != nil {
		return err
	}
	if err := m.unfinished("finish", 0); err != nil {
		return err
	}
	m.report.Seconds = time.Since(began).Seconds()
	return nil
}

// request sends requests for tasks to the request queue.
func (m *measurement) request(phase string, tasks int) error {
	body, err := json.Marshal(map[string]any{
		"namespace": Namespace, "task_name": m.shape.Name, "task_version": benchVersion, "input_data": m.input,
	})
	if err != nil {
		return fmt.Errorf("encode a request: %w", err)
	}
	const sqlRequest = `select count(*) from pgmq.send_batch($1::text, array_fill($2::jsonb, array[$3::integer]))`
	for sent := 0; sent < tasks; {
		n := min(submitChunk, tasks-sent)
		if _, err := m.Pool.Exec(m.ctx, sqlRequest, m.Requests, string(body), n); err != nil {
			return fmt.Errorf("request tasks: %w", err)
		}
		sent += n
		m.options.Progress(phase, sent, tasks)
	}
	return nil
}

// unfinished waits until no request is waiting and the given number of tasks have not
// ended.
func (m *measurement) unfinished(phase string, want int) error {
	const sqlUnfinished = `
select (select count(*) from tasker_tasks where state in ('pending', 'in_progress')), m.queue_length
  from pgmq.metrics($1::text) m`
	var most int
	for {
		var now, requests int
		if err := m.Pool.QueryRow(m.ctx, sqlUnfinished, m.Requests).Scan(&now, &requests); err != nil {
			return fmt.Errorf("count unfinished tasks: %w", err)
		}
		if requests == 0 && now == want {
			return nil
		}
		if requests == 0 && now > want && want > 0 {
			return fmt.Errorf("%d tasks are unfinished, but %d were requested: something else is using this database", now, want)
		}
		if most = max(most, now); want > 0 {
			m.options.Progress(phase, now, want)
		} else {
			m.options.Progress(phase, most-now, most)
		}
		if err := m.rest(unfinishedLooks); err != nil {
			return err
		}
	}
}

// unfinishedLooks is the time between two checks of the host's progress.
const unfinishedLooks = 100 * time.Millisecond

// inFlightTasks is the default number of tasks in flight at once.
const inFlightTasks = 100_000
