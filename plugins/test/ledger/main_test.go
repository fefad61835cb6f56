package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/plugins/test/ledger/book"
	"github.com/tasker-systems/tasker-host/sdk/handler"
)

// TestStep: the oracle of the end-to-end tests relies on this.
func TestStep(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "book")
	l := &ledger{}
	require.Error(t, l.open(t.Context(), options{}))
	require.NoError(t, l.open(t.Context(), options{Dir: dir}))
	do := func(config, key string, attempt int) error {
		_, err := l.step(t.Context(), handler.Step{Config: json.RawMessage(config), IdempotencyKey: key, Attempt: attempt})
		return err
	}
	require.NoError(t, do(`{}`, "a", 1))
	require.NoError(t, do(`{}`, "a", 2))
	require.ErrorContains(t, do(`{"fail_first": 1}`, "b", 1), "FLAKY")
	require.NoError(t, do(`{"fail_first": 1}`, "b", 2))
	require.ErrorContains(t, do(`{"permanent": true}`, "c", 1), "DOOMED")
	require.NoError(t, l.book.Close())

	entries, keys, err := book.Read(dir)
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"a": true, "b": true}, keys)
	var events []book.Event
	for _, e := range entries {
		events = append(events, e.Event)
	}
	require.Equal(t, []book.Event{
		book.Started, book.Accepted, book.Returned, book.Started, book.Ignored, book.Returned,
		book.Started, book.Returned, book.Started, book.Accepted, book.Returned, book.Started, book.Returned,
	}, events)
}

// TestShut: steps wait while the book is shut.
func TestShut(t *testing.T) {
	t.Parallel()
	l := &ledger{}
	dir := t.TempDir()
	require.NoError(t, l.open(t.Context(), options{Dir: dir}))
	open, err := book.Shut(dir)
	require.NoError(t, err)
	step := handler.Step{Config: json.RawMessage(`{}`), IdempotencyKey: "a", Attempt: 1}
	ctx, cancel := context.WithTimeout(t.Context(), 2*gateLook)
	defer cancel()
	_, err = l.step(ctx, step)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, open())
	_, err = l.step(t.Context(), step)
	require.NoError(t, err)
	require.NoError(t, l.book.Close())
}
