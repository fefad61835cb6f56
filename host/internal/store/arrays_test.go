package store

import (
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// typeMaps returns the type map of our connections, and that of pgx.
func typeMaps() (ours, theirs *pgtype.Map) {
	ours, theirs = pgtype.NewMap(), pgtype.NewMap()
	registerIn(ours)
	return ours, theirs
}

// Slices are encoded byte for byte as by pgx, and decoded like pgx does.
func TestArraysAreThoseOfPgx(t *testing.T) {
	t.Parallel()
	ours, theirs := typeMaps()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(-1, 5).Draw(t, "length")
		bytes := rapid.SliceOfN(rapid.Byte(), 0, 20)
		for oid, slices := range map[uint32][]any{
			pgtype.UUIDArrayOID: {draw(t, n, rapid.Custom(func(t *rapid.T) vocab.UUID {
				return vocab.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
			}))},
			pgtype.Int4ArrayOID:  {draw(t, n, rapid.Int32()), draw(t, n, pointer(rapid.Int32()))},
			pgtype.Int8ArrayOID:  {draw(t, n, rapid.Int64()), draw(t, n, pointer(rapid.Int64()))},
			pgtype.TextArrayOID:  {draw(t, n, rapid.String()), draw(t, n, pointer(rapid.String())), draw(t, n, raw(bytes))},
			pgtype.ByteaArrayOID: {draw(t, n, bytes)},
		} {
			for _, slice := range slices {
				want, err := theirs.Encode(oid, pgtype.BinaryFormatCode, slice, nil)
				require.NoError(t, err)
				got, err := ours.Encode(oid, pgtype.BinaryFormatCode, slice, []byte("before"))
				require.NoError(t, err)
				if want == nil {
					require.Nil(t, got, "%T", slice)
				} else {
					require.Equal(t, append([]byte("before"), want...), got, "%T", slice)
				}
			}
		}
		requireDecoded[vocab.UUID](t, ours, theirs, pgtype.UUIDArrayOID, draw(t, n, rapid.Just(vocab.UUID{1, 15: 2})))
		requireDecoded[int32](t, ours, theirs, pgtype.Int4ArrayOID, draw(t, n, rapid.Int32()))
		requireDecoded[string](t, ours, theirs, pgtype.TextArrayOID, draw(t, n, rapid.String()))
		requireDecoded[Verdict](t, ours, theirs, pgtype.TextArrayOID, draw(t, n, rapid.SampledFrom([]Verdict{Recorded, StaleLease, "", "new"})))
	})
}

func draw[E any](t *rapid.T, n int, of *rapid.Generator[E]) []E {
	if n < 0 {
		return nil
	}
	return rapid.SliceOfN(of, n, n).Draw(t, "slice")
}

func pointer[E any](of *rapid.Generator[E]) *rapid.Generator[*E] {
	return rapid.Custom(func(t *rapid.T) *E {
		if rapid.Bool().Draw(t, "null") {
			return nil
		}
		v := of.Draw(t, "value")
		return &v
	})
}

func raw(of *rapid.Generator[[]byte]) *rapid.Generator[json.RawMessage] {
	return rapid.Custom(func(t *rapid.T) json.RawMessage {
		if rapid.Bool().Draw(t, "null") {
			return nil
		}
		return of.Draw(t, "value")
	})
}

func requireDecoded[E any](t *rapid.T, ours, theirs *pgtype.Map, oid uint32, slice []E) {
	encoded, err := theirs.Encode(oid, pgtype.BinaryFormatCode, slice, nil)
	require.NoError(t, err)
	got, want := make([]E, 3), make([]E, 3)
	require.NoError(t, theirs.Scan(oid, pgtype.BinaryFormatCode, encoded, &want))
	require.NoError(t, ours.Scan(oid, pgtype.BinaryFormatCode, encoded, &got))
	require.Equal(t, want, got)
	if len(encoded) > 0 { // truncated input is an error, and nothing worse
		_ = ours.Scan(oid, pgtype.BinaryFormatCode, encoded[:rapid.IntRange(0, len(encoded)-1).Draw(t, "cut")], &got)
	}
}

// Anything but an array of the requested type is an error: NULL among values that have
// none, two dimensions, another type.
func TestArraysThatAreNotWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	pool, err := OpenPool(t.Context(), PoolConfig{URL: pgtest.DSN(t)})
	require.NoError(t, err)
	defer pool.Close()
	for _, sql := range []string{"select array[1, null]::integer[]", "select array[[1, 2], [3, 4]]::integer[]"} {
		var numbers []int32
		require.Error(t, pool.QueryRow(t.Context(), sql).Scan(&numbers), sql)
	}
	var numbers []int32
	require.NoError(t, pool.QueryRow(t.Context(), "select $1::integer[] || $2::integer[]", []int32{}, []int32{3, -4}).Scan(&numbers))
	require.Equal(t, []int32{3, -4}, numbers)
	var null []int32
	require.NoError(t, pool.QueryRow(t.Context(), "select $1::integer[]", []int32(nil)).Scan(&null))
	require.Nil(t, null)
	var texts []string
	require.NoError(t, pool.QueryRow(t.Context(), `select array(select coalesce(v, 'NULL') from unnest($1::text[]) v)`,
		[]json.RawMessage{json.RawMessage(`{"a": "é\\"}`), nil, {}}).Scan(&texts))
	require.Equal(t, []string{`{"a": "é\\"}`, "NULL", ""}, texts)
}
