package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
)

const (
	sqlRecordPluginEvents = `
select tasker_record_plugin_events($1::text, $2::text, $3::timestamptz[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[],
                                   $9::text[], $10::text[], $11::text[], $12::text[], $13::integer[], $14::text[], $15::text[],
                                   $16::integer[], $17::integer[], $18::bigint[], $19::bigint[])`

	sqlQuarantines = `
select q.kind, q.name, q.sha256, q.config_digest, q.since, q.actor, q.reason
  from tasker_plugin_quarantines q where q.environment = $1::text order by q.since, q.sha256`

	// The executable that served last and is in no quarantine, whatever the settings.
	sqlLastGood = `
select e.sha256
  from tasker_plugin_events e
 where e.environment = $1::text and e.kind = $2::text and e.name = $3::text and e.to_phase = 'active' and e.sha256 not in ('', $4::text)
   and not exists (select from tasker_plugin_quarantines q
                    where q.environment = e.environment and q.kind = e.kind and q.name = e.name
                      and q.sha256 = e.sha256 and q.config_digest = '')
 order by e.at desc, e.event_id desc limit 1`

	sqlPluginEvents = `
select e.event_id, e.at, e.host, e.kind, e.name, e.generation, e.from_phase, e.to_phase, e.actor, e.reason, e.sha256, e.config_digest, e.weight,
       coalesce(g.version, ''), coalesce(g.sdk_version, '')
  from tasker_plugin_events e
  left join tasker_plugin_generations g on g.generation = e.generation
 where e.environment = $1::text and e.kind = $2::text and e.name = $3::text and e.event_id < $4::bigint
 order by e.event_id desc limit $5::integer`

	sqlPluginGenerations = `
select g.generation, g.host, g.sha256, g.config_digest, g.version, g.sdk_version, g.started_at, g.ended_at,
       g.exit_code, g.signal, g.max_rss, g.cpu_ms
  from tasker_plugin_generations g
 where g.environment = $1::text and g.kind = $2::text and g.name = $3::text and g.generation < $4::bigint
 order by g.generation desc limit $5::integer`
)

// PluginJournal records the events of one host's plugins.
type PluginJournal struct {
	store             *Store
	host, environment string
}

var _ journal.Journal = (*PluginJournal)(nil)

// PluginJournal returns the journal of a host.
func (s *Store) PluginJournal(host, environment string) *PluginJournal {
	return &PluginJournal{store: s, host: host, environment: environment}
}

// Record records events: all of them or none.
func (j *PluginJournal) Record(ctx context.Context, events []journal.Event) error {
	var c pluginColumns
	for i := range events {
		c.add(&events[i])
	}
	_, err := j.store.pool.Exec(ctx, sqlRecordPluginEvents, j.host, j.environment,
		c.at, c.kind, c.name, c.generation, c.from, c.to, c.actor, c.reason, c.sha256, c.config, c.weight, c.version, c.sdk,
		c.exit, c.signal, c.rss, c.cpu)
	if err != nil {
		return fmt.Errorf("record %d events of plugins: %w", len(events), err)
	}
	return nil
}

// pluginColumns holds events by column.
type pluginColumns struct {
	at                                                                []time.Time
	kind, name, from, to, actor, reason, sha256, config, version, sdk []string
	generation                                                        []int64
	weight                                                            []int32
	exit, signal                                                      []*int32
	rss, cpu                                                          []*int64
}

func (c *pluginColumns) add(e *journal.Event) {
	c.at = append(c.at, e.At)
	c.kind, c.name = append(c.kind, e.Slot.Kind), append(c.name, e.Slot.Name)
	c.from, c.to = append(c.from, string(e.From)), append(c.to, string(e.To))
	c.actor, c.reason = append(c.actor, storable(string(e.Actor))), append(c.reason, storable(e.Reason))
	c.sha256, c.config = append(c.sha256, e.SHA256), append(c.config, e.Config)
	c.version, c.sdk = append(c.version, storable(e.Version)), append(c.sdk, storable(e.SDKVersion))
	c.generation = append(c.generation, int64(e.Generation))
	c.weight = append(c.weight, int32(e.Weight))
	var exit, signal *int32
	var rss, cpu *int64
	if end := e.End; end != nil {
		exit, signal = new(int32(end.ExitCode)), new(int32(end.Signal))
		rss, cpu = new(end.MaxRSS), new(end.CPU.Milliseconds())
	}
	c.exit, c.signal = append(c.exit, exit), append(c.signal, signal)
	c.rss, c.cpu = append(c.rss, rss), append(c.cpu, cpu)
}

// storable makes a text acceptable to PostgreSQL: plugins may send anything.
func storable(s string) string {
	const most = 8 << 10
	return strings.ReplaceAll(strings.ToValidUTF8(s[:min(len(s), most)], ""), "\x00", "")
}

// Quarantines returns the quarantines of this environment.
func (j *PluginJournal) Quarantines(ctx context.Context) ([]journal.Quarantine, error) {
	rows, err := j.store.pool.Query(ctx, sqlQuarantines, j.environment)
	if err != nil {
		return nil, fmt.Errorf("read quarantines of plugins: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (q journal.Quarantine, err error) {
		err = row.Scan(&q.Slot.Kind, &q.Slot.Name, &q.SHA256, &q.Config, &q.Since, &q.Actor, &q.Reason)
		return q, err
	})
	if err != nil {
		return nil, fmt.Errorf("read quarantines of plugins: %w", err)
	}
	return all, nil
}

// LastGood returns the executable that last served in a slot, on any host of the
// environment, and is neither in quarantine nor the given one; empty if there is
// none.
func (j *PluginJournal) LastGood(ctx context.Context, slot journal.SlotID, but string) (string, error) {
	var sum string
	err := j.store.pool.QueryRow(ctx, sqlLastGood, j.environment, slot.Kind, slot.Name, but).Scan(&sum)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("find what last served in %s: %w", slot, err)
	}
	return sum, nil
}

// PluginEvents returns a page of the events of a slot, on all hosts of the
// environment, latest first. before is the id of the last event of the previous
// page; 0: the first page.
func (s *Store) PluginEvents(ctx context.Context, environment string, slot journal.SlotID, before int64, limit int) ([]journal.Event, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	rows, err := s.pool.Query(ctx, sqlPluginEvents, environment, slot.Kind, slot.Name, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read events of plugin %s: %w", slot, err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e journal.Event, err error) {
		err = row.Scan(&e.ID, &e.At, &e.Host, &e.Slot.Kind, &e.Slot.Name, &e.Generation, &e.From, &e.To, &e.Actor, &e.Reason,
			&e.SHA256, &e.Config, &e.Weight, &e.Version, &e.SDKVersion)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read events of plugin %s: %w", slot, err)
	}
	return events, nil
}

// PluginGeneration is one recorded process of a plugin.
type PluginGeneration struct {
	Number              uint64
	Host                string
	SHA256, Config      string
	Version, SDKVersion string
	StartedAt           time.Time
	EndedAt             *time.Time   // nil: not yet, or its host was killed
	End                 *journal.End // nil: nobody saw it end
}

// PluginGenerations returns a page of the processes of a slot, on all hosts of the
// environment, latest first. before is the number of the last one on the previous
// page; 0: the first page.
func (s *Store) PluginGenerations(ctx context.Context, environment string, slot journal.SlotID, before int64, limit int) ([]PluginGeneration, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	rows, err := s.pool.Query(ctx, sqlPluginGenerations, environment, slot.Kind, slot.Name, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read generations of plugin %s: %w", slot, err)
	}
	all, err := pgx.CollectRows(rows, scanPluginGeneration)
	if err != nil {
		return nil, fmt.Errorf("read generations of plugin %s: %w", slot, err)
	}
	return all, nil
}

func scanPluginGeneration(row pgx.CollectableRow) (g PluginGeneration, err error) {
	var exit, signal *int
	var rss, cpu *int64
	err = row.Scan(&g.Number, &g.Host, &g.SHA256, &g.Config, &g.Version, &g.SDKVersion, &g.StartedAt, &g.EndedAt, &exit, &signal, &rss, &cpu)
	if err == nil && exit != nil {
		g.End = &journal.End{ExitCode: *exit, Signal: *signal, MaxRSS: *rss, CPU: time.Duration(*cpu) * time.Millisecond}
	}
	return g, err
}
