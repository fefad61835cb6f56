package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	sqlTellProgress = `
with ended as (delete from tasker_step_progress where lease_id = any($5::uuid[]))
insert into tasker_step_progress (lease_id, host_id, percent, note)
select u.lease_id, $1::integer, u.percent, u.note from unnest($2::uuid[], $3::integer[], $4::text[]) u(lease_id, percent, note)
    on conflict (lease_id) do update set percent = excluded.percent, note = excluded.note`

	sqlStepProgress = `
select s.step_no, n.name, coalesce(l.progress, json_build_object('percent', p.percent, 'note', p.note)::jsonb)::text
  from tasker_workflow_steps s
  join tasker_named_steps n on n.plan_id = s.plan_id and n.step_no = s.step_no
  left join tasker_worker_leases l on l.lease_id = s.lease_id
  left join tasker_step_progress p on p.lease_id = s.lease_id
 where s.task_uuid = $1::uuid and s.state = 'in_progress' and (l.progress is not null or p.lease_id is not null)
 order by s.step_no`
)

// Told is the progress that the attempt under a lease reports.
type Told struct {
	Lease   vocab.UUID
	Percent int
	Note    string
}

// maxNote bounds a note, in bytes, as the API shows it.
const maxNote = 256

// TellProgress records the progress that a host's steps reported, for clients of other
// hosts, and deletes the records of leases that have ended. No lease may be in both
// slices, nor twice in one.
func (s *Store) TellProgress(ctx context.Context, host int32, told []Told, ended []vocab.UUID) error {
	leases, percents, notes := make([]vocab.UUID, len(told)), make([]int32, len(told)), make([]string, len(told))
	for i, t := range told {
		leases[i], percents[i], notes[i] = t.Lease, int32(t.Percent), payload.Text(t.Note, maxNote)
	}
	if _, err := s.pool.Exec(ctx, sqlTellProgress, host, leases, percents, notes, ended); err != nil {
		return fmt.Errorf("record the progress of %d steps: %w", len(told), err)
	}
	return nil
}

// Progress is the progress that a running step reports.
type Progress struct {
	Number int
	Step   string          // its name
	Told   json.RawMessage // an object with percent and note; from an outside worker whatever it sent
}

// Progress returns what the running steps of a task reported, in order: those of outside
// workers and, up to a second late, those of all hosts.
func (s *Store) Progress(ctx context.Context, task vocab.UUID) ([]Progress, error) {
	rows, err := s.pool.Query(ctx, sqlStepProgress, task)
	if err != nil {
		return nil, fmt.Errorf("read the progress of task %s: %w", task, err)
	}
	told, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Progress, err error) {
		var text string
		err = row.Scan(&p.Number, &p.Step, &text)
		p.Told = json.RawMessage(text)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the progress of task %s: %w", task, err)
	}
	return told, nil
}
