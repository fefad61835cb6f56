package pluginhost

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
)

// account is a journal in memory.
type account struct {
	mu     sync.Mutex
	events []Event
	down   bool
}

var errDown = errors.New("the database is down")

func (a *account) Record(_ context.Context, events []Event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down {
		return errDown
	}
	for _, e := range events {
		e.ID = int64(len(a.events) + 1)
		a.events = append(a.events, e)
	}
	return nil
}

func (a *account) set(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
}

func (a *account) all() []Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.events)
}

func (a *account) Quarantines(context.Context) (all []Quarantine, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down {
		return nil, errDown
	}
	for _, e := range a.events {
		switch {
		case e.Generation == 0 && e.To == journal.Quarantined:
			all = append(all, Quarantine{Slot: e.Slot, SHA256: e.SHA256, Config: e.Config, Since: e.At, Actor: e.Actor, Reason: e.Reason})
		case e.From == journal.Quarantined:
			all = slices.DeleteFunc(all, func(q Quarantine) bool { return q.Covers(e.Slot, e.SHA256, e.Config) })
		}
	}
	return all, nil
}

func (a *account) LastGood(ctx context.Context, id SlotID, but string) (string, error) {
	quarantined, err := a.Quarantines(ctx)
	if err != nil {
		return "", err
	}
	for _, e := range slices.Backward(a.all()) {
		bad := slices.ContainsFunc(quarantined, func(q Quarantine) bool { return q.Covers(e.Slot, e.SHA256, e.Config) })
		if e.Slot == id && e.To == journal.Active && e.SHA256 != but && !bad {
			return e.SHA256, nil
		}
	}
	return "", nil
}

// routed returns the route table in the form of a replay.
func (b *bench) routed() map[SlotID]journal.Route {
	b.router.mu.Lock()
	defer b.router.mu.Unlock()
	table := map[SlotID]journal.Route{}
	for _, s := range b.list() {
		r, now := b.router.slots[s.label], journal.Route{}
		if r.primary != nil {
			now.Primary = r.primary.number
		}
		if r.canary != nil {
			now.Canary, now.Weight = r.canary.number, int(r.weight)
		}
		if now != (journal.Route{}) {
			table[s.id] = now
		}
	}
	return table
}

// Whatever happens to plugins, the account says which generation served when, and
// all its edges are legal.
func TestReplayRebuildsTheRoutes(t *testing.T) {
	t.Parallel()
	a := &account{}
	one := quick(spec("chaos", script(t, "sdk")))
	one.Rollout.Hold, one.Rollout.Trial = time.Hour, -1
	b := started(t, func(c *Config) { c.Journal, c.Restart.Exits = a, 1<<30 }, one, spec("raw", script(t, "raw")))
	type moment struct {
		at    time.Time
		table map[SlotID]journal.Route
	}
	var moments []moment
	s, err := b.slot(chaosSlot)
	require.NoError(t, err)
	for range 12 {
		switch rand.N(5) {
		case 0:
			require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, one.Path)}, ann, "test"))
		case 1:
			canary := one
			canary.Path, canary.Rollout.Strategy, canary.Rollout.Steps = another(t, one.Path), CanarySteps, []int{30}
			_, err := b.Apply(t.Context(), []Spec{canary, spec("raw", script(t, "raw"))}, journal.ByConfig, "test")
			require.NoError(t, err)
		case 2:
			if err := b.Rollback(t.Context(), chaosSlot, ann, "test"); err != nil {
				require.ErrorIs(t, err, ErrNothingToDo)
			}
		case 3:
			if err := b.Promote(t.Context(), chaosSlot, ann, "test"); err != nil {
				require.ErrorIs(t, err, ErrNothingToDo)
			}
		default:
			b.run(t, "chaos.crash", "")
			eventually(t, "the right generation serves", func() bool {
				return b.Status()[0].State == Serving && !s.lacks()
			})
		}
		s.mu.Lock() // a canary that has crashed may not have left the table yet
		moments = append(moments, moment{time.Now(), b.routed()})
		s.mu.Unlock()
	}
	require.NoError(t, b.Stop(t.Context()))
	events := a.all()
	for _, m := range moments {
		require.Equal(t, m.table, journal.Replay(events, m.at), m.at)
	}
	require.Empty(t, journal.Replay(events, time.Now()))

	phases := map[uint64]Phase{}
	slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
	for _, e := range events {
		require.True(t, e.Generation == 0 || journal.Can(e.From, e.To), "%+v", e)
		if e.Generation > 0 {
			require.Equal(t, phases[e.Generation], e.From, "%+v", e)
			phases[e.Generation] = e.To
		}
	}
	for g, p := range phases {
		require.True(t, p.Over(), "generation %d is %s at the end", g, p)
	}
	require.NotContains(t, b.log.String(), "illegal change")
}

// A generation that ended leaves the route table at once, and the account says so
// even if the host stops before the generation is cleaned up.
func TestAccountOfAnEndInAStop(t *testing.T) {
	t.Parallel()
	a := &account{}
	one := quick(spec("chaos", script(t, "sdk")))
	b := started(t, func(c *Config) { c.Journal = a }, one)
	canary := one
	canary.Path = another(t, one.Path)
	canary.Rollout = Rollout{Strategy: CanarySteps, Steps: []int{30}, Hold: time.Hour, Trial: -1}
	_, err := b.Apply(t.Context(), []Spec{canary}, journal.ByConfig, "test")
	require.NoError(t, err)
	s, err := b.slot(chaosSlot)
	require.NoError(t, err)
	s.mu.Lock()
	ends := s.candidate
	s.mu.Unlock()
	s.lose(ends)
	at, table := time.Now(), b.routed()
	require.Zero(t, table[s.id].Canary)
	require.NoError(t, b.Stop(t.Context()))
	require.Equal(t, table, journal.Replay(a.all(), at))
}

// While the account cannot be written, no requested change is made; a crash is
// still handled, and recorded later.
func TestNoRowNoSwitch(t *testing.T) {
	t.Parallel()
	a := &account{}
	one := quick(spec("chaos", script(t, "sdk")))
	one.Rollout.Trial = -1
	b := started(t, func(c *Config) { c.Journal = a }, one)
	require.NoError(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, one.Path)}, ann, "test"))
	before := b.Status()[0]
	a.set(true)
	require.ErrorIs(t, b.Swap(t.Context(), chaosSlot, Source{Path: another(t, one.Path)}, ann, "test"), ErrNotRecorded)
	require.ErrorIs(t, b.Rollback(t.Context(), chaosSlot, ann, "test"), ErrNotRecorded)
	require.Equal(t, before.Generation, b.Status()[0].Generation)
	b.run(t, "chaos.crash", "")
	require.Equal(t, `1`, string(b.run(t, "chaos.echo", `1`).Result))
	count := len(a.all())
	a.set(false)
	eventually(t, "it is recorded later", func() bool {
		return slices.ContainsFunc(a.all()[count:], func(e Event) bool { return e.Generation == before.Generation && e.To == journal.Crashed })
	})
}

// Quarantine and the last good executable outlive the host.
func TestQuarantineSurvivesTheHost(t *testing.T) {
	t.Parallel()
	a := &account{}
	one := quick(spec("chaos", script(t, "sdk")))
	store := t.TempDir()
	with := func(c *Config) { c.Journal, c.StoreDir = a, store+"/store" }
	first := started(t, with, one)
	good := first.Status()[0].SHA256
	bad := one
	bad.Path = another(t, one.Path)
	changes, err := first.Apply(t.Context(), []Spec{bad}, journal.ByConfig, "the file changed")
	require.NoError(t, err)
	require.Equal(t, SwapTo, changes[0].Action)
	require.NoError(t, first.Rollback(t.Context(), chaosSlot, ann, "it is bad"))
	require.NoError(t, first.Stop(t.Context()))

	second := started(t, with, bad) // the file still names it
	require.Equal(t, good, second.Status()[0].SHA256)
	plan, err := second.Plan([]Spec{bad})
	require.NoError(t, err)
	require.Equal(t, Refuse, plan[0].Action)
	require.Contains(t, plan[0].Reason, "it is bad")
	require.NoError(t, second.Release(t.Context(), chaosSlot, "", ann, "it was not"))
	_, err = second.Apply(t.Context(), []Spec{bad}, journal.ByConfig, "again")
	require.NoError(t, err)
	require.NotEqual(t, good, second.Status()[0].SHA256)
}

// No binary runs with settings in quarantine: neither the one with which they were bad
// nor one that served before.
func TestQuarantineOfSettingsSurvivesTheHost(t *testing.T) {
	t.Parallel()
	a := &account{}
	old := quick(spec("chaos", script(t, "sdk")))
	old.Required = false
	store := t.TempDir()
	with := func(c *Config) { c.Journal, c.StoreDir = a, store+"/store" }
	first := started(t, with, old)
	first.serves(t, 0)
	now := old
	now.Path = another(t, old.Path)
	_, err := first.Apply(t.Context(), []Spec{now}, journal.ByConfig, "the file changed")
	require.NoError(t, err)
	sum := first.Status()[0].SHA256
	bad := now
	bad.MaxProcs = 1
	changes, err := first.Apply(t.Context(), []Spec{bad}, journal.ByConfig, "a setting changed")
	require.NoError(t, err)
	require.Equal(t, Reconfigure, changes[0].Action)
	require.NoError(t, first.Rollback(t.Context(), chaosSlot, ann, "too few"))
	require.NoError(t, first.Stop(t.Context()))

	bad.SHA256 = sum // as plugins.lock has it
	second := started(t, with, bad)
	eventually(t, "the settings are refused", func() bool {
		last := second.Status()[0].LastError
		return strings.Contains(last, "too few (put the previous settings back, or release these first: tasker plugin release handler/chaos --digest "+sum[:12])
	})
	require.NotEqual(t, Serving, second.Status()[0].State)
	require.NoError(t, second.Release(t.Context(), chaosSlot, "", ann, "enough"))
	require.Equal(t, sum, second.serves(t, 0).SHA256)
}
