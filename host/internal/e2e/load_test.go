package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
)

// The load: tasks of several shapes, submitted as a careful client does, who
// writes down what it was told.

// shape is a template of the load and how its tasks must end.
type shape struct {
	yaml  string
	state string
	steps []string // name=state, by name
}

// pace is how long a step takes, at least and at most, in milliseconds.
type pace struct{ least, most int }

// shapes are the templates by name. Their steps all run the handler ledger.step.
var shapes = map[string]shape{
	"single": {steps("a"), "complete", []string{"a=complete"}},
	"linear": {steps("a", "b:a", "c:b", "d:c"), "complete", []string{"a=complete", "b=complete", "c=complete", "d=complete"}},
	"diamond": {steps("a", "b:a", "c:a", "d:b,c"), "complete", []string{
		"a=complete", "b=complete", "c=complete", "d=complete",
	}},
	"fan_in": {
		steps("a", "b0:a", "b1:a", "b2:a", "b3:a", "b4:a", "b5:a", "b6:a", "b7:a", "b8:a", "b9:a", "c:b0,b1,b2,b3,b4,b5,b6,b7,b8,b9"),
		"complete",
		[]string{
			"a=complete", "b0=complete", "b1=complete", "b2=complete", "b3=complete", "b4=complete", "b5=complete",
			"b6=complete", "b7=complete", "b8=complete", "b9=complete", "c=complete",
		},
	},
	"flaky": {steps("a", "b:a!fail_first: 1", "c:a!fail_first: 2", "d:b,c"), "complete", []string{
		"a=complete", "b=complete", "c=complete", "d=complete",
	}},
	"doomed": {steps("a", "b:a!permanent: true", "c:b", "d:a"), "error", []string{
		"a=complete", "b=error", "c=pending", "d=complete",
	}},
}

// steps writes the steps of a template: name, :parents, !configuration.
func steps(all ...string) string {
	var y string
	for _, s := range all {
		head, more, _ := strings.Cut(s, "!")
		name, parents, _ := strings.Cut(head, ":")
		if more != "" {
			more = ", " + more
		}
		y += fmt.Sprintf("  - {name: %s, handler: ledger.step, depends_on: [%s], config: {min_ms: MIN, max_ms: MAX%s}}\n", name, parents, more)
	}
	return y
}

// template is a shape's YAML. A step may be claimed often before it counts as
// poison: chaos kills it again and again through no fault of its own.
func template(name string, p pace) []byte {
	y := fmt.Sprintf("namespace: chaos\nname: %s\nversion: 1.0.0\n"+
		"defaults: {retry: {max_attempts: 20, backoff: fixed, base: 50ms}}\nsteps:\n", name)
	body := shapes[name].yaml
	body = strings.ReplaceAll(body, "MIN", fmt.Sprint(p.least))
	return []byte(y + strings.ReplaceAll(body, "MAX", fmt.Sprint(p.most)))
}

// outcome is what the submitter knows of a submission.
type outcome string

const (
	unknown  outcome = "unknown" // no answer, or one that promises nothing
	accepted outcome = "accepted"
	refused  outcome = "refused" // the host says that it did nothing
)

// submitted is the submitter's record of one task, made before it is sent.
type submitted struct {
	key, shape string
	outcome    outcome
	task       string // its UUID, once accepted
}

// submitter keeps a number of tasks open, in spite of everything.
type submitter struct {
	clients []*client.Client
	permits chan struct{}
	mu      sync.Mutex
	tasks   []submitted
	unknown int // submissions whose fate was unknown for a while
}

func newSubmitter(hosts ...*client.Client) *submitter {
	return &submitter{clients: hosts, permits: make(chan struct{}, 10_000)}
}

// keepOpen submits tasks until ctx ends, so that about open of them are not
// finished at any time.
func (s *submitter) keepOpen(ctx context.Context, db *pgxpool.Pool, open int) {
	var wg sync.WaitGroup
	for range 32 { // the load must stand on a slow machine, too
		wg.Go(func() {
			for {
				select {
				case <-s.permits:
					s.submit(ctx)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if n, err := openTasks(ctx, db); err == nil {
			for range open - n - len(s.permits) {
				s.permits <- struct{}{}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	wg.Wait()
}

func openTasks(ctx context.Context, db *pgxpool.Pool) (n int, err error) {
	err = db.QueryRow(ctx, `select count(*) from tasker_tasks t where t.state in ('pending', 'in_progress')`).Scan(&n)
	return n, err
}

// mix says how often each shape is submitted.
var mix = []string{"linear", "linear", "diamond", "diamond", "fan_in", "flaky", "flaky", "doomed"}

// submit sends one task to one of the hosts, and writes down what it is told.
func (s *submitter) submit(ctx context.Context) {
	s.mu.Lock()
	n := len(s.tasks)
	s.tasks = append(s.tasks, submitted{key: fmt.Sprintf("key-%d", n), shape: mix[n%len(mix)], outcome: unknown})
	s.mu.Unlock()
	s.send(ctx, n, s.clients[rand.IntN(len(s.clients))])
}

func (s *submitter) send(ctx context.Context, n int, to *client.Client) {
	s.mu.Lock()
	record := s.tasks[n]
	s.mu.Unlock()
	task, _, err := to.Submit(ctx, client.Submission{
		Namespace: "chaos", Name: record.shape, IdempotencyKey: record.key, Context: json.RawMessage(fmt.Sprintf(`{"n": %d}`, n)),
	})
	switch e, answered := errors.AsType[*client.Error](err); {
	case err == nil:
		record.outcome, record.task = accepted, task.UUID
	case answered && e.Status < http.StatusInternalServerError:
		record.outcome = refused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks[n] = record
	if record.outcome == unknown {
		s.unknown++
	}
}

// resolve asks again for everything whose fate is not known, with the same key.
func (s *submitter) resolve(t testing.TB) {
	t.Helper()
	for n := range s.tasks {
		eventually(t, patience, "the fate of a submission is known", func() bool {
			if s.tasks[n].outcome == unknown {
				s.send(t.Context(), n, s.clients[n%len(s.clients)])
			}
			return s.tasks[n].outcome != unknown
		})
		require.Equal(t, accepted, s.tasks[n].outcome, "key %s", s.tasks[n].key)
	}
}
