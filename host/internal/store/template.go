package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/cache"
	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// ErrTemplateDiffers is returned when a template version exists with a different
// source. A version never changes, because tasks run by it.
var ErrTemplateDiffers = errors.New("the version exists with different content")

const (
	sqlUpsertNamespace = `
with made as (
  insert into tasker_task_namespaces (name) values ($1::text) on conflict (name) do nothing returning namespace_id
)
select namespace_id from made
union all
select namespace_id from tasker_task_namespaces where name = $1::text
limit 1`

	sqlUpsertHandlers = `
insert into tasker_handlers (name) select distinct n from unnest($1::text[]) n order by n on conflict (name) do nothing`

	sqlTemplateDigest = `
select digest from tasker_named_tasks where namespace_id = $1::integer and name = $2::text and version = $3::text`

	sqlInsertTemplate = `
insert into tasker_named_tasks (namespace_id, name, version, description, source, digest, input_schema)
values ($1::integer, $2::text, $3::text, $4::text, $5::text, $6::bytea, $7::text::jsonb)
on conflict (namespace_id, name, version) do nothing
returning named_task_uuid`

	sqlInsertPlan = `
insert into tasker_task_plans (named_task_uuid, environment, priority, step_count, sink_count, namespace_id, identity)
values ($1::uuid, $2::text, $3::smallint, $4::integer, $5::integer, $6::integer, $7::text)
returning plan_id`

	// One JSON row per step: the arrays in it have different lengths, which unnest
	// cannot express.
	sqlInsertSteps = `
insert into tasker_named_steps (plan_id, step_no, handler_id, name, description, parents, children, config,
                                retryable, max_attempts, backoff, base_ms, cap_ms, jitter, timeout_ms, priority, skippable, ancestors)
select $1::integer, s.step_no, h.handler_id, s.name, s.description, s.parents, s.children, s.config,
       s.retryable, s.max_attempts, s.backoff, s.base_ms, s.cap_ms, s.jitter, s.timeout_ms, s.priority, s.skippable, s.ancestors
  from jsonb_to_recordset($2::text::jsonb) s(
         step_no integer, handler text, name text, description text, parents integer[], children integer[], config jsonb,
         retryable boolean, max_attempts smallint, backoff tasker_backoff, base_ms bigint, cap_ms bigint, jitter real,
         timeout_ms bigint, priority smallint, skippable boolean, ancestors integer[])
  join tasker_handlers h on h.name = s.handler`

	sqlFindPlan = `
select p.plan_id
  from tasker_task_namespaces ns
  join tasker_named_tasks t on t.namespace_id = ns.namespace_id
  join tasker_task_plans p on p.named_task_uuid = t.named_task_uuid
 where ns.name = $1::text and t.name = $2::text and t.version = $3::text and p.environment in ('', $4::text)
 order by p.environment desc
 limit 1`

	sqlLoadPlan = `
select ns.name, t.name, t.version, t.description, p.environment, p.priority, p.identity, t.input_schema
  from tasker_task_plans p
  join tasker_named_tasks t on t.named_task_uuid = p.named_task_uuid
  join tasker_task_namespaces ns on ns.namespace_id = p.namespace_id
 where p.plan_id = $1::integer`

	sqlLoadPlanSteps = `
select s.name, h.name, h.handler_id, s.description, s.parents, s.children, s.config, s.retryable, s.max_attempts,
       s.backoff::text, s.base_ms, s.cap_ms, s.jitter, s.timeout_ms, s.priority, s.skippable
  from tasker_named_steps s
  join tasker_handlers h on h.handler_id = s.handler_id
 where s.plan_id = $1::integer
 order by s.step_no`

	sqlHandlerIDs = `select name, handler_id from tasker_handlers where name = any($1::text[])`

	sqlQueuesOf = `
select distinct ns.name || '_queue' as queue
  from tasker_named_steps s
  join tasker_task_plans p on p.plan_id = s.plan_id
  join tasker_task_namespaces ns on ns.namespace_id = p.namespace_id
 where s.handler_id = any($1::integer[])
 order by queue`
)

// ApplyTemplate stores a template version with its plans, and creates its namespace's
// queue. created is false if the same version with the same source existed already; if
// its source differs the error is [ErrTemplateDiffers].
func (s *Store) ApplyTemplate(ctx context.Context, source []byte, plans []workflow.Plan) (created bool, err error) {
	base := &plans[0]
	name := fmt.Sprintf("%s/%s@%s", base.Namespace, base.Name, base.Version)
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := allow(ctx, tx, definitionTime); err != nil {
			return err
		}
		created, err = applyTemplate(ctx, tx, source, plans)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("apply template %s: %w", name, err)
	}
	return created, nil
}

func applyTemplate(ctx context.Context, tx pgx.Tx, source []byte, plans []workflow.Plan) (bool, error) {
	base := &plans[0]
	digest := sha256.Sum256(source)
	queue, err := pgmq.ForNamespace(base.Namespace)
	if err != nil {
		return false, err
	}
	if err := pgmq.New(tx).Create(ctx, queue); err != nil {
		return false, err
	}
	if err := watchQueue(ctx, tx, queue); err != nil {
		return false, err
	}
	var namespace int32
	if err := tx.QueryRow(ctx, sqlUpsertNamespace, base.Namespace).Scan(&namespace); err != nil {
		return false, fmt.Errorf("namespace: %w", err)
	}
	var schema *string
	if len(base.InputSchema) > 0 {
		schema = text(base.InputSchema)
	}
	var id vocab.UUID
	err = tx.QueryRow(ctx, sqlInsertTemplate, namespace, base.Name, base.Version, base.Description, string(source), digest[:], schema).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		var have []byte
		if err := tx.QueryRow(ctx, sqlTemplateDigest, namespace, base.Name, base.Version).Scan(&have); err != nil {
			return false, err
		}
		if !bytes.Equal(have, digest[:]) {
			return false, ErrTemplateDiffers
		}
		return false, nil
	} else if err != nil {
		return false, err
	}
	for i := range plans {
		if err := insertPlan(ctx, tx, id, namespace, &plans[i]); err != nil {
			return false, fmt.Errorf("plan for environment %q: %w", plans[i].Environment, err)
		}
	}
	return true, nil
}

// planStep is a step as sqlInsertSteps reads it.
type planStep struct {
	Number      int32           `json:"step_no"`
	Handler     string          `json:"handler"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Parents     []int32         `json:"parents"`
	Children    []int32         `json:"children"`
	Config      json.RawMessage `json:"config"`
	Retryable   bool            `json:"retryable"`
	MaxAttempts int             `json:"max_attempts"`
	Backoff     string          `json:"backoff"`
	BaseMS      int64           `json:"base_ms"`
	CapMS       int64           `json:"cap_ms"`
	Jitter      float64         `json:"jitter"`
	TimeoutMS   int64           `json:"timeout_ms"`
	Priority    *int            `json:"priority"`
	Skippable   bool            `json:"skippable"`
	Ancestors   []int32         `json:"ancestors"`
}

// maxAncestors is the number of steps whose results an outside worker is given, unless
// it has more parents.
const maxAncestors = 256

// nearest returns the first steps, most at most.
func nearest(steps []int32, most int) []int32 { return steps[:min(len(steps), most)] }

func insertPlan(ctx context.Context, tx pgx.Tx, template vocab.UUID, namespace int32, p *workflow.Plan) error {
	steps := make([]planStep, len(p.Steps))
	handlers := make([]string, len(p.Steps))
	sinks := 0
	for i := range p.Steps {
		st := &p.Steps[i]
		handlers[i] = st.Handler
		if len(st.Children) == 0 {
			sinks++
		}
		steps[i] = planStep{
			Number: int32(i), Handler: st.Handler, Name: st.Name, Description: st.Description, // bounded by vocab.MaxSteps
			Parents: orEmpty(st.Parents), Children: orEmpty(st.Children), Config: st.Config,
			Retryable: st.Retry.Retryable, MaxAttempts: st.Retry.MaxAttempts, Backoff: string(st.Retry.Backoff),
			BaseMS: st.Retry.Base.Milliseconds(), CapMS: st.Retry.Cap.Milliseconds(), Jitter: st.Retry.Jitter,
			TimeoutMS: st.Timeout.Milliseconds(), Priority: st.Priority, Skippable: st.Skippable,
			Ancestors: orEmpty(nearest(p.Ancestors(i), max(len(st.Parents), maxAncestors))),
		}
	}
	if _, err := tx.Exec(ctx, sqlUpsertHandlers, handlers); err != nil {
		return fmt.Errorf("handlers: %w", err)
	}
	var id int32
	err := tx.QueryRow(ctx, sqlInsertPlan, template, p.Environment, p.Priority, len(steps), sinks, namespace,
		cmp.Or(p.Identity, workflow.IdentityAllow)).Scan(&id)
	if err != nil {
		return err
	}
	rows, err := json.Marshal(steps)
	if err != nil {
		return fmt.Errorf("marshal steps: %w", err)
	}
	if _, err := tx.Exec(ctx, sqlInsertSteps, id, string(rows)); err != nil {
		return fmt.Errorf("steps: %w", err)
	}
	return nil
}

func orEmpty(numbers []int32) []int32 {
	if numbers == nil {
		return []int32{}
	}
	return numbers
}

// Plan is a stored plan.
type Plan struct {
	ID int32
	workflow.Plan
	HandlerIDs []int32 // of the steps, by number
	RootCount  int     // steps without parents

	input func() (*workflow.InputSchema, error)
}

// Input returns the compiled schema of the contexts of the plan's tasks.
func (p *Plan) Input() (*workflow.InputSchema, error) { return p.input() }

// planCache keeps plans, which never change, by number, and the numbers of the plans of
// template versions, which do not change either once they exist.
type planCache struct {
	byID   *cache.Cache[int32, *Plan]
	byName *cache.Cache[planName, int32]
}

// The names of the caches in the metrics.
const (
	PlanCache     = "plans"
	PlanNameCache = "plan_names"
)

// usualPlans is how many plans are kept unless CachePlans says otherwise.
const usualPlans = 10_000

func newPlanCache(limit int, m *cache.Metrics) planCache {
	return planCache{byID: cache.New[int32, *Plan](PlanCache, limit, m), byName: cache.New[planName, int32](PlanNameCache, limit, m)}
}

// CachePlans sets how many plans are kept, and the metrics that count them. It discards
// the cached plans, and must be called before the store is used.
func (s *Store) CachePlans(limit int, m *cache.Metrics) { s.plans = newPlanCache(limit, m) }

type planName struct{ namespace, name, version, environment string }

// Plan returns the plan with that number.
func (s *Store) Plan(ctx context.Context, id int32) (*Plan, error) {
	if p, ok := s.plans.byID.Get(id); ok {
		return p, nil
	}
	p, err := s.loadPlan(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("load plan %d: %w", id, err)
	}
	return s.plans.byID.Put(id, p), nil
}

// FindPlan returns the plan of a template version in an environment. The error
// is [ErrNotFound] if the version was never applied.
func (s *Store) FindPlan(ctx context.Context, namespace, name, version, environment string) (*Plan, error) {
	key := planName{namespace, name, version, environment}
	if id, ok := s.plans.byName.Get(key); ok {
		return s.Plan(ctx, id)
	}
	var id int32
	err := s.pool.QueryRow(ctx, sqlFindPlan, namespace, name, version, environment).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("find template %s/%s@%s: %w", namespace, name, version, err)
	}
	s.plans.byName.Put(key, id)
	return s.Plan(ctx, id)
}

func (s *Store) loadPlan(ctx context.Context, id int32) (*Plan, error) {
	p := &Plan{ID: id}
	p.input = sync.OnceValues(func() (*workflow.InputSchema, error) {
		schema, err := workflow.CompileInput(&p.Plan)
		if err != nil {
			return nil, fmt.Errorf("input schema of %s/%s@%s: %w", p.Namespace, p.Name, p.Version, err)
		}
		return schema, nil
	})
	err := s.pool.QueryRow(ctx, sqlLoadPlan, id).
		Scan(&p.Namespace, &p.Name, &p.Version, &p.Description, &p.Environment, &p.Priority, &p.Identity, &p.InputSchema)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	} else if err != nil {
		return nil, err
	}
	rows, err := s.pool.Query(ctx, sqlLoadPlanSteps, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var st workflow.Step
		var handler int32
		var base, limit, timeout int64
		err := rows.Scan(&st.Name, &st.Handler, &handler, &st.Description, &st.Parents, &st.Children, &st.Config,
			&st.Retry.Retryable, &st.Retry.MaxAttempts, &st.Retry.Backoff, &base, &limit, &st.Retry.Jitter, &timeout, &st.Priority, &st.Skippable)
		if err != nil {
			return nil, err
		}
		st.Retry.Base, st.Retry.Cap = time.Duration(base)*time.Millisecond, time.Duration(limit)*time.Millisecond
		st.Timeout = time.Duration(timeout) * time.Millisecond
		p.Steps = append(p.Steps, st)
		p.HandlerIDs = append(p.HandlerIDs, handler)
		if len(st.Parents) == 0 {
			p.RootCount++
		}
	}
	return p, rows.Err()
}

// HandlerIDs returns the ids of handlers by name. Handlers that no template names have
// none.
func (s *Store) HandlerIDs(ctx context.Context, names []string) (map[string]int32, error) {
	rows, err := s.pool.Query(ctx, sqlHandlerIDs, names)
	if err != nil {
		return nil, fmt.Errorf("read handler ids: %w", err)
	}
	defer rows.Close()
	ids := make(map[string]int32, len(names))
	for rows.Next() {
		var name string
		var id int32
		if err := rows.Scan(&name, &id); err != nil {
			return nil, fmt.Errorf("read handler ids: %w", err)
		}
		ids[name] = id
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read handler ids: %w", err)
	}
	return ids, nil
}

// QueuesOf returns the queues of the namespaces whose templates use one of the
// handlers, in order.
func (s *Store) QueuesOf(ctx context.Context, handlers []int32) ([]string, error) {
	rows, err := s.pool.Query(ctx, sqlQueuesOf, handlers)
	if err != nil {
		return nil, fmt.Errorf("read queues: %w", err)
	}
	queues, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read queues: %w", err)
	}
	return queues, nil
}
