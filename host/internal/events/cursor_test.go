package events_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/events"
)

func TestCursor(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
	for _, c := range []events.Cursor{
		{Since: at},
		{From: 7, To: 7, Since: at},
		{From: 1 << 40, To: 1<<40 + 300, Skip: 2000, Since: at},
	} {
		got, err := events.ParseCursor(c.String())
		require.NoError(t, err)
		require.Equal(t, c, got)
		require.Less(t, len(c.String()), 60)
	}
	for _, text := range []string{
		"", "x", "AQ", "!", "\x00", "AQEBAQ", "AgEAAAA", "..", "AQEAAAA=",
		(events.Cursor{From: 1, To: 1, Skip: 1, Since: at}).String(), // after the first of none
		(events.Cursor{From: 1, To: 2, Since: at}).String(),          // in between
		(events.Cursor{From: 5, To: 3, Skip: 1, Since: at}).String(), // backwards
		(events.Cursor{From: 5, To: 5, Since: at}).String() + "AA",
	} {
		_, err := events.ParseCursor(text)
		require.ErrorIs(t, err, events.ErrCursor, "%q", text)
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add("AQ")
	f.Add(events.Cursor{From: 1 << 40, To: 1<<40 + 300, Skip: 2000, Since: time.UnixMicro(1e15)}.String())
	f.Fuzz(func(t *testing.T, text string) {
		c, err := events.ParseCursor(text)
		if err != nil {
			require.ErrorIs(t, err, events.ErrCursor)
			return
		}
		require.Equal(t, text, c.String(), "one text per position")
		require.LessOrEqual(t, c.From, c.To)
	})
}
