package journal

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// Of all pairs of phases, exactly these are edges.
func TestEdges(t *testing.T) {
	t.Parallel()
	legal := map[[2]Phase]bool{}
	for from, to := range edges {
		for _, phase := range to {
			_, known := edges[phase]
			require.True(t, known, phase)
			legal[[2]Phase{from, phase}] = true
		}
	}
	for _, from := range Phases() {
		require.Equal(t, from == Discovered, Can("", from))
		for _, to := range Phases() {
			require.Equal(t, legal[[2]Phase{from, to}], Can(from, to), "%s to %s", from, to)
			if from.Over() {
				require.False(t, Can(from, to), "%s is an end", from)
			}
			if from.Running() {
				require.True(t, Can(from, Crashed), "%s has a process", from)
			}
			if to == Active {
				require.True(t, !Can(from, to) || from == Probing || from.Running(), "%s has no process", from)
			}
		}
		require.True(t, from == Quarantined || reaches(from), "%s never ends", from)
	}
	require.Equal(t, []Phase{Verified}, edges[Quarantined])
}

// reaches reports whether a final phase can be reached.
func reaches(from Phase) bool {
	seen := map[Phase]bool{}
	var walk func(Phase) bool
	walk = func(p Phase) bool {
		if p.Over() {
			return true
		}
		if seen[p] {
			return false
		}
		seen[p] = true
		for _, to := range edges[p] {
			if walk(to) {
				return true
			}
		}
		return false
	}
	return walk(from)
}

// memory is a journal that can be made to fail or to hang.
type memory struct {
	mu     sync.Mutex
	events []Event
	fail   error
	hang   bool
}

func (m *memory) Record(ctx context.Context, events []Event) error {
	m.mu.Lock()
	fail, hang := m.fail, m.hang
	if fail == nil && !hang {
		m.events = append(m.events, events...)
	}
	m.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return fail
}

func (m *memory) Quarantines(context.Context) ([]Quarantine, error)        { return nil, nil }
func (m *memory) LastGood(context.Context, SlotID, string) (string, error) { return "", nil }

func (m *memory) set(fail error, hang bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail, m.hang = fail, hang
}

func (m *memory) generations() (all []uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		all = append(all, e.Generation)
	}
	return all
}

// An event that somebody waits for is refused if it cannot be written, and is
// not written later; all others are, in order.
func TestLogFailsClosedAndOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		l := NewLog(m, hclog.NewNullLogger())
		require.NoError(t, l.Must(t.Context(), Event{Generation: 1}))
		down := errors.New("down")
		for n, hang := range []bool{false, true} {
			m.set(down, hang)
			l.Later(Event{Generation: uint64(10*n + 2)}, Event{Generation: uint64(10*n + 3)})
			began := time.Now()
			err := l.Must(t.Context(), Event{Generation: 99})
			require.ErrorIs(t, err, ErrNotRecorded)
			require.LessOrEqual(t, time.Since(began), 2*writeTimeout)
			l.Later(Event{Generation: uint64(10*n + 4)})
		}
		m.set(nil, false)
		require.NoError(t, l.Must(t.Context(), Event{Generation: 20}))
		require.Equal(t, []uint64{1, 2, 3, 4, 12, 13, 14, 20}, m.generations())
		require.Zero(t, l.Close(t.Context()))
	})
}

// While nothing can be written, the oldest events are dropped first, and
// counted.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		m.set(errors.New("down"), false)
		l := NewLog(m, hclog.NewNullLogger())
		defer l.Close(t.Context())
		for n := range maxPending + 100 {
			l.Later(Event{Generation: uint64(n)})
			if n%100 == 0 {
				synctest.Wait()
			}
		}
		require.Equal(t, 100, l.Lost())
		m.set(nil, false)
		require.NoError(t, l.Must(t.Context()))
		written := m.generations()
		require.Len(t, written, maxPending-1, "the one that waits takes a place")
		require.Equal(t, uint64(maxPending+99), written[len(written)-1])
	})
}

func TestReplay(t *testing.T) {
	t.Parallel()
	slot, other := SlotID{"handler", "a"}, SlotID{"scaling", "b"}
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	events := []Event{ // not in order
		{ID: 2, At: at(2), Slot: slot, Generation: 2, From: Probing, To: Canary, Weight: 10},
		{ID: 1, At: at(1), Slot: slot, Generation: 1, From: Probing, To: Active},
		{ID: 3, At: at(3), Slot: slot, Generation: 2, From: Canary, To: Canary, Weight: 50},
		{ID: 4, At: at(3), Slot: other, Generation: 3, From: Probing, To: Shadow},
		{ID: 6, At: at(4), Slot: slot, Generation: 1, From: Active, To: Draining},
		{ID: 5, At: at(4), Slot: slot, Generation: 2, From: Canary, To: Active},
		{ID: 7, At: at(5), Slot: slot, From: Verified, To: Quarantined},
		{ID: 8, At: at(6), Slot: slot, Generation: 2, From: Active, To: Crashed},
		{ID: 9, At: at(6), Slot: slot, Generation: 1, From: Standby, To: Active},
	}
	for second, want := range []map[SlotID]Route{
		{},
		{slot: {Primary: 1}},
		{slot: {Primary: 1, Canary: 2, Weight: 10}},
		{slot: {Primary: 1, Canary: 2, Weight: 50}, other: {Shadow: 3}},
		{slot: {Primary: 2}, other: {Shadow: 3}},
		{slot: {Primary: 2}, other: {Shadow: 3}},
		{slot: {Primary: 1}, other: {Shadow: 3}},
	} {
		require.Equal(t, want, Replay(events, at(second)), second)
	}
}

// After Close, no events are accepted, and nobody waits for one.
func TestClosedLogTakesNothing(t *testing.T) {
	t.Parallel()
	j := &memory{}
	l := NewLog(j, hclog.NewNullLogger())
	require.Zero(t, l.Close(t.Context()))
	l.Later(Event{})
	require.ErrorIs(t, l.Must(t.Context(), Event{}), ErrNotRecorded)
	require.Empty(t, j.generations())
}
