package pipeline

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// However a batch must be divided, each of its outcomes is recorded once, or given up if
// the database refuses it: none is lost, and none fails because of another.
func TestEachOutcomeOfABatchIsRecordedOnce(t *testing.T) {
	t.Parallel()
	poison, refused := &pgconn.PgError{Code: "22P05"}, &pgconn.PgError{Code: "42883"}
	require.Equal(t, []store.Class{store.BadInput, store.Permanent}, []store.Class{store.Classify(poison), store.Classify(refused)})
	rapid.Check(t, func(t *rapid.T) {
		fate := rapid.SliceOfN(rapid.SampledFrom([]error{nil, nil, nil, poison, refused}), 1, 12).Draw(t, "fate")
		fits := rapid.IntRange(1, len(fate)).Draw(t, "fits")
		batch := make([]settlement, len(fate))
		for i := range batch {
			batch[i] = settlement{Settlement: store.Settlement{StepKey: store.StepKey{Number: int32(i)}, Outcome: vocab.OutcomeSuccess}}
		}
		recorded, lost := make([][]vocab.Outcome, len(fate)), make([]error, len(fate))
		send := func(part []settlement) error {
			if len(part) > fits {
				return errBatchTooLong
			}
			for _, s := range part {
				if err := fate[s.Number]; err != nil && (!errors.Is(err, poison) || s.Outcome == vocab.OutcomeSuccess) {
					return err
				}
			}
			for _, s := range part {
				recorded[s.Number] = append(recorded[s.Number], s.Outcome)
			}
			return nil
		}
		inParts(batch, send, func(part []settlement, err error) {
			for _, s := range part {
				require.NoError(t, lost[s.Number], "told twice")
				lost[s.Number] = err
			}
		})
		for i, err := range fate {
			switch {
			case err == nil:
				require.Equal(t, []vocab.Outcome{vocab.OutcomeSuccess}, recorded[i])
				require.NoError(t, lost[i])
			case errors.Is(err, poison):
				require.Equal(t, []vocab.Outcome{vocab.OutcomePermanent}, recorded[i], "a value that is refused fails its step")
				require.NoError(t, lost[i])
			default:
				require.Empty(t, recorded[i])
				require.Equal(t, err, lost[i])
			}
		}
	})
}
