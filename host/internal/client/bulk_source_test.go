package client_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	public "github.com/tasker-systems/tasker-host/sdk/client"
)

// Lines that the host does not answer make room, too, however many there are in a row.
func TestBulkGoesOnAfterManyLinesWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	_, c := setup(t)
	const blanks = 9000 // more than can wait for an answer at once
	l := newLedger(t)
	result, err := c.SubmitAll(t.Context(), func(yield func(public.Submission) bool) {
		for range blanks {
			if !yield(linear("{")) {
				return
			}
		}
		yield(linear(`{"even_number":2}`))
	}, public.BulkOptions{Answered: l.answered})
	require.NoError(t, err)
	require.EqualValues(t, blanks, result.Refused)
	require.EqualValues(t, 1, result.Created)

	const good = `{"namespace":"linear_workflow","name":"mathematical_sequence"}`
	result, err = c.SubmitLines(t.Context(), strings.NewReader(good+strings.Repeat("\n", blanks)+good), public.BulkOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 2, result.Created)
}

// A source that pauses does not use up the patience with the host.
func TestBulkPatienceBeginsWithWhatThereIsToSend(t *testing.T) {
	t.Parallel()
	b, c := setup(t)
	const patience = 3 * time.Second
	b.Fail(api.Unavailable("away", time.Millisecond, nil))
	waited := false
	result, err := c.SubmitAll(t.Context(), func(yield func(public.Submission) bool) {
		<-time.After(patience + 100*time.Millisecond)
		yield(linear(`{}`))
	}, public.BulkOptions{Patience: patience, Waiting: func(error, time.Duration) {
		waited = true
		b.Fail(nil)
	}})
	require.NoError(t, err)
	require.True(t, waited)
	require.EqualValues(t, 1, result.Created)
}
