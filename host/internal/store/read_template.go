package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

const (
	// Versions are ordered by their numbers, x.y.z-beta before x.y.z.
	versionOrder = `regexp_match(%[1]s, '^(\d+)\.(\d+)\.(\d+)')::numeric[] || (%[1]s !~ '-')::integer::numeric`

	// The handlers that some host which takes work serves now.
	servedNow = `
select distinct u.name
  from tasker_hosts o cross join unnest(o.served) u(name)
 where o.state in ('startup', 'normal') and o.alive_until > clock_timestamp()`

	sqlServedNow = servedNow + `
 order by u.name`

	// Only handlers in the base plan, and in the plans of environments in which a
	// host runs, matter.
	sqlUnserved = `
select p.named_task_uuid, array_agg(distinct h.name order by h.name)
  from tasker_task_plans p
  join tasker_named_steps n on n.plan_id = p.plan_id
  join tasker_handlers h on h.handler_id = n.handler_id
 where p.named_task_uuid = any($1::uuid[])
   and (p.environment = '' or p.environment in (
         select o.environment from tasker_hosts o where o.alive_until > clock_timestamp()))
   and h.name not in (` + servedNow + `)
 group by p.named_task_uuid`

	templateFrom = `
  from tasker_named_tasks t
  join tasker_task_namespaces ns on ns.namespace_id = t.namespace_id
  join tasker_task_plans p on p.named_task_uuid = t.named_task_uuid and p.environment = ''`
)

var (
	sqlListTemplates = `
select t.named_task_uuid, ns.name, t.name, t.version, t.description, p.step_count, t.created_at` + templateFrom + `
 where ($1::text = '' or ns.name = $1::text) and ($2::text = '' or t.name = $2::text)
   and ($3::text = '' or (ns.name collate "C", t.name collate "C", ` + fmt.Sprintf(versionOrder, "t.version") + `, t.version collate "C")
                       > ($3::text collate "C", $4::text collate "C", ` + fmt.Sprintf(versionOrder, "$5::text") + `, $5::text collate "C"))
 order by ns.name collate "C", t.name collate "C", ` + fmt.Sprintf(versionOrder, "t.version") + `, t.version collate "C"
 limit $6::integer`

	sqlReadTemplate = `
select t.named_task_uuid, t.source, t.created_at, p.plan_id,
       array(select q.environment from tasker_task_plans q
              where q.named_task_uuid = t.named_task_uuid and q.environment <> '' order by q.environment collate "C")` + templateFrom + `
 where ns.name = $1::text and t.name = $2::text and t.version = $3::text`

	sqlLatestVersion = `
select t.version` + templateFrom + `
 where ns.name = $1::text and t.name = $2::text
 order by t.version !~ '-' desc, ` + fmt.Sprintf(versionOrder, "t.version") + ` desc, t.version collate "C" desc
 limit 1`
)

// TemplateFilter selects template versions. Zero values select everything.
type TemplateFilter struct {
	Namespace, Name string

	// The version after which the list continues; an empty namespace: from the
	// beginning.
	AfterNamespace, AfterName, AfterVersion string

	Limit int // at least 1
}

// Template is a stored template version.
type Template struct {
	Plan         *Plan // the base plan
	Source       string
	Environments []string // those that the template overrides something for, in order
	AppliedAt    time.Time
	Unserved     []string // handlers that it needs and that no host serves now, in order
}

// ListTemplates returns up to f.Limit template versions, ordered by namespace,
// name and version, each with a warning for every handler that nobody serves.
func (s *Store) ListTemplates(ctx context.Context, f TemplateFilter) ([]readmodel.TemplateSummary, error) {
	rows, err := s.pool.Query(ctx, sqlListTemplates,
		f.Namespace, f.Name, f.AfterNamespace, f.AfterName, f.AfterVersion, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	var ids []string
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (readmodel.TemplateSummary, error) {
		var t readmodel.TemplateSummary
		var id string
		err := r.Scan(&id, &t.Namespace, &t.Name, &t.Version, &t.Description, &t.Steps, &t.AppliedAt)
		t.AppliedAt = utc(t.AppliedAt)
		ids = append(ids, id)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	unserved, err := s.unserved(ctx, ids...)
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	for i, id := range ids {
		list[i].Warnings = UnservedWarnings(unserved[id])
	}
	return list, nil
}

// UnservedWarnings returns the warnings that nobody serves the handlers.
func UnservedWarnings(handlers []string) []string {
	var warnings []string
	for _, h := range handlers {
		warnings = append(warnings, fmt.Sprintf("no plugin of a running host serves handler %s: steps that need it will wait", h))
	}
	return warnings
}

// ReadTemplate returns a template version. The error is [ErrNotFound] if there
// is none.
func (s *Store) ReadTemplate(ctx context.Context, namespace, name, version string) (*Template, error) {
	var t Template
	var id string
	var plan int32
	err := s.pool.QueryRow(ctx, sqlReadTemplate, namespace, name, version).
		Scan(&id, &t.Source, &t.AppliedAt, &plan, &t.Environments)
	if err == nil {
		t.Plan, err = s.Plan(ctx, plan)
	}
	if err == nil {
		var unserved map[string][]string
		unserved, err = s.unserved(ctx, id)
		t.Unserved = unserved[id]
	}
	if err != nil {
		return nil, fmt.Errorf("read template %s/%s@%s: %w", namespace, name, version, orNotFound(err))
	}
	t.AppliedAt = t.AppliedAt.UTC()
	return &t, nil
}

// LatestVersion returns the highest version of a template; a version such as
// 2.0.0-beta only if there is no other. The error is [ErrNotFound] if there is none.
func (s *Store) LatestVersion(ctx context.Context, namespace, name string) (string, error) {
	var version string
	if err := s.pool.QueryRow(ctx, sqlLatestVersion, namespace, name).Scan(&version); err != nil {
		return "", fmt.Errorf("latest version of template %s/%s: %w", namespace, name, orNotFound(err))
	}
	return version, nil
}

// ServedHandlers returns the handlers that some host which takes work serves now,
// in order.
func (s *Store) ServedHandlers(ctx context.Context) ([]string, error) {
	rows, err := s.pool.Query(ctx, sqlServedNow)
	if err != nil {
		return nil, fmt.Errorf("read served handlers: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read served handlers: %w", err)
	}
	return names, nil
}

// unserved returns the handlers that nobody serves, by the template's UUID.
func (s *Store) unserved(ctx context.Context, templates ...string) (map[string][]string, error) {
	if len(templates) == 0 {
		return nil, nil
	}
	rows, err := s.pool.Query(ctx, sqlUnserved, templates)
	if err != nil {
		return nil, fmt.Errorf("read unserved handlers: %w", err)
	}
	defer rows.Close()
	byID := make(map[string][]string, len(templates))
	for rows.Next() {
		var id string
		var names []string
		if err := rows.Scan(&id, &names); err != nil {
			return nil, fmt.Errorf("read unserved handlers: %w", err)
		}
		byID[id] = names
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read unserved handlers: %w", err)
	}
	return byID, nil
}
