package backend

import (
	"context"
	"fmt"
	"strings"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func (b *Backend) hostsCheck(ctx context.Context) (readmodel.DoctorCheck, error) {
	hosts, err := b.Store.HostFacts(ctx)
	if err != nil {
		return readmodel.DoctorCheck{}, err
	}
	var alive, unswept []string
	versions := map[string]bool{}
	for i := range hosts {
		switch h := &hosts[i]; {
		case h.Alive():
			alive = append(alive, fmt.Sprintf("%s (%s)", h.Name, h.State))
			versions[h.Version] = true
		case !h.Swept:
			unswept = append(unswept, h.Name)
		}
	}
	c := good("", "%d alive: %s", len(alive), strings.Join(alive, ", "))
	switch {
	case len(alive) == 0:
		return fail(good("", "no host is alive"), "this host's heartbeats do not reach the database; see its log"), nil
	case len(unswept) > 0:
		c.Message += fmt.Sprintf("; gone, with steps not yet given back: %s", strings.Join(unswept, ", "))
		return warn(c, "a running host gives them back within its sweep interval; check again"), nil
	case len(versions) > 1:
		c.Message += fmt.Sprintf("; they run %d different versions", len(versions))
		return warn(c, "normal during an upgrade; complete it"), nil
	default:
		return c, nil
	}
}

func (b *Backend) queuesCheck(ctx context.Context) (readmodel.DoctorCheck, error) {
	depths, err := b.Store.QueueDepths(ctx)
	if err != nil {
		return readmodel.DoctorCheck{}, err
	}
	queues, err := b.Store.Queues(ctx, "")
	if err != nil {
		return readmodel.DoctorCheck{}, err
	}
	var texts, deep, bloated, paused []string
	for i := range queues {
		if queues[i].Paused != nil {
			paused = append(paused, queues[i].Namespace)
		}
	}
	for _, d := range depths {
		texts = append(texts, fmt.Sprintf("%s %d", d.Queue, d.Live))
		if d.Live >= queueWarn {
			deep = append(deep, d.Queue)
		}
		if d.Dead >= deadRowsWarn {
			bloated = append(bloated, d.Queue)
		}
	}
	c := good("", "messages (estimated): %s", strings.Join(texts, ", "))
	switch {
	case len(depths) == 0:
		return good("", "there are no queues yet"), nil
	case len(paused) > 0:
		c.Message += "; paused: " + strings.Join(paused, ", ")
		return warn(c, "resume them with `tasker queue resume NAMESPACE`"), nil
	case len(deep) > 0:
		return warn(c, "work arrives faster than it is done on "+strings.Join(deep, ", ")+": check that its handlers are served, or add hosts"), nil
	case len(bloated) > 0:
		return warn(c, "many dead rows in "+strings.Join(bloated, ", ")+": check that autovacuum keeps up and no old transaction is open"), nil
	default:
		return c, nil
	}
}

func (b *Backend) limboCheck(ctx context.Context) (readmodel.DoctorCheck, error) {
	limbo, err := b.Store.Limbo(ctx, shownLimbo)
	if err != nil {
		return readmodel.DoctorCheck{}, err
	}
	if len(limbo) == 0 {
		return good("", "every step of an active task has something that wakes it"), nil
	}
	first := limbo[0]
	return fail(
		good("", "%s that nothing wakes, such as step %s: %s", atLeast(len(limbo), shownLimbo), first.UUID(), first.Reason),
		"this is a bug in Tasker Host: please report it with the rows of the view tasker_limbo; cancel the task to get rid of it"), nil
}

const lettersFix = "list them with `tasker dlq list`, then replay or discard them"

func (b *Backend) deadLettersCheck(ctx context.Context) (readmodel.DoctorCheck, error) {
	f, err := b.Store.WorkFacts(ctx, countedLetters)
	switch {
	case err != nil:
		return readmodel.DoctorCheck{}, err
	case f.DeadLetters == 0:
		return good("", "there are none"), nil
	case f.DeadLetters >= countedLetters:
		return warn(good("", "there are %d or more", countedLetters), lettersFix), nil
	default:
		return warn(good("", "there are %d", f.DeadLetters), lettersFix), nil
	}
}

func (b *Backend) oldestTaskCheck(ctx context.Context) (readmodel.DoctorCheck, error) {
	f, err := b.Store.WorkFacts(ctx, 1)
	if err != nil {
		return readmodel.DoctorCheck{}, err
	}
	if f.OldestTask == (vocab.UUID{}) {
		return good("", "no task is active"), nil
	}
	age := b.Now().Sub(f.OldestTaskAt)
	c := good("", "the oldest active task, %s, is %s old", f.OldestTask, rounded(age))
	if age >= taskWarn {
		return warn(c, "see what it waits for: `tasker task show "+f.OldestTask.String()+"`"), nil
	}
	return c, nil
}

// atLeast formats the number of steps found by a look that stopped at a limit.
func atLeast(n, limit int) string {
	if n == limit {
		return fmt.Sprintf("%d steps or more", n)
	}
	return fmt.Sprintf("%d steps", n)
}
