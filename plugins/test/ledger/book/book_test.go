package book_test

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/plugins/test/ledger/book"
)

// TestManyWriters: lines never mix, and exactly one of the writers has the
// effect.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var taken atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			b, err := book.Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			for range 200 {
				if err := b.Write(book.Entry{Event: book.Started, Step: "step", Key: "key"}); err != nil {
					t.Error(err)
				}
				if first, err := b.Effect("key"); err != nil {
					t.Error(err)
				} else if first {
					taken.Add(1)
				}
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, taken.Load())
	entries, keys, err := book.Read(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1600)
	require.Equal(t, map[string]bool{"key": true}, keys)
}

func TestKeysThatAreNoNames(t *testing.T) {
	t.Parallel()
	b, err := book.Open(t.TempDir())
	require.NoError(t, err)
	for _, key := range []string{"", "a/b", "..//", "a\x00"} {
		_, err := b.Effect(key)
		require.Error(t, err, key)
	}
	require.NoError(t, b.Close())
}

// What a process that was killed while writing leaves behind does not damage
// the entries of others.
func TestPieces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := book.Open(dir)
	require.NoError(t, err)
	require.NoError(t, b.Write(book.Entry{Event: book.Started, Step: "first"}))
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = log.WriteString("\n{\"event\":\"started\",\"st")
	require.NoError(t, err)
	require.NoError(t, log.Close())
	require.NoError(t, b.Write(book.Entry{Event: book.Returned, Step: "second"}))
	require.NoError(t, b.Close())
	entries, _, err := book.Read(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	require.Equal(t, "first", entries[0].Step)
	require.Equal(t, book.Returned, entries[1].Event)
}
