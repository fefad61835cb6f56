package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

// The record of two generations, one of which crashes and is quarantined, as seen by
// people and hosts.
func TestPluginJournal(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	st := store.New(pool)
	j := st.PluginJournal("here/1", "test")
	slot := journal.SlotID{Kind: "handler", Name: "math"}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	events := []journal.Event{}
	happened := func(generation uint64, from, to journal.Phase, sha256 string) *journal.Event {
		at = at.Add(time.Second)
		events = append(events, journal.Event{
			At: at, Slot: slot, Generation: generation, From: from, To: to, Actor: journal.Operator("ann"),
			Reason: "a \x00 test\xff", SHA256: sha256, Config: "c", Version: "1.0.0", SDKVersion: "0.9.0",
		})
		return &events[len(events)-1]
	}
	for g, sum := range []string{"aa", "bb"} {
		n := uint64(g + 1)
		happened(n, journal.Verified, journal.Starting, sum)
		happened(n, journal.Starting, journal.Handshaken, sum)
		happened(n, journal.Probing, journal.Active, sum)
	}
	happened(2, journal.Active, journal.Crashed, "bb").End = &journal.End{ExitCode: -1, Signal: 11, MaxRSS: 5 << 20, CPU: 3 * time.Second}
	require.NoError(t, j.Record(t.Context(), events))

	last := func(but string) string {
		sum, err := j.LastGood(t.Context(), slot, but)
		require.NoError(t, err)
		return sum
	}
	require.Equal(t, "bb", last(""))
	require.Equal(t, "aa", last("bb"))

	// Quarantine applies to the environment, and ends on request.
	written := len(events)
	happened(0, journal.Verified, journal.Quarantined, "bb").Config = ""
	require.NoError(t, j.Record(t.Context(), events[written:]))
	require.NoError(t, j.Record(t.Context(), events[written:]), "repeating it changes nothing")
	found, err := st.PluginJournal("there/2", "test").Quarantines(t.Context())
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.True(t, found[0].Covers(slot, "bb", "whatever"))
	require.Equal(t, "a  test", found[0].Reason)
	require.Equal(t, "aa", last(""))
	other, err := st.PluginJournal("there/2", "production").Quarantines(t.Context())
	require.NoError(t, err)
	require.Empty(t, other)
	happened(0, journal.Quarantined, journal.Verified, "bb").Config = ""
	require.NoError(t, j.Record(t.Context(), events[written+1:]))
	found, err = j.Quarantines(t.Context())
	require.NoError(t, err)
	require.Empty(t, found)
	require.Equal(t, "bb", last(""))

	// The history comes in pages, newest first, and allows the routes to be
	// reconstructed.
	var all []journal.Event
	for before := int64(0); ; {
		page, err := st.PluginEvents(t.Context(), "test", slot, before, 4)
		require.NoError(t, err)
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
		before = page[len(page)-1].ID
	}
	require.Len(t, all, len(events)+1)
	require.Equal(t, journal.Verified, all[0].To)
	require.Equal(t, "here/1", all[0].Host)
	require.Equal(t, map[journal.SlotID]journal.Route{slot: {Primary: 2}}, journal.Replay(all, events[5].At))
	require.Empty(t, journal.Replay(all, at))

	generations, err := st.PluginGenerations(t.Context(), "test", slot, 0, 10)
	require.NoError(t, err)
	require.Len(t, generations, 2)
	require.Equal(t, "bb", generations[0].SHA256)
	require.Equal(t, "1.0.0", generations[0].Version)
	require.Equal(t, journal.End{ExitCode: -1, Signal: 11, MaxRSS: 5 << 20, CPU: 3 * time.Second}, *generations[0].End)
	require.Nil(t, generations[1].EndedAt)

	for _, change := range []string{`update tasker_plugin_events set reason = ''`, `delete from tasker_plugin_events`} {
		_, err = pool.Exec(t.Context(), change)
		require.ErrorContains(t, err, "are never changed")
	}
}
