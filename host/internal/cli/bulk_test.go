package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
)

func bulkLines(n int) string {
	return strings.Repeat(`{"namespace":"linear_workflow","name":"mathematical_sequence","context":{"even_number":6}}`+"\n", n)
}

func TestSubmitBulk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := setup(t)
	b.input = bulkLines(2)
	r := b.run(t, "task", "submit", "--bulk", "-", "--idempotency-key", "load-1")
	require.Zero(t, r.code, r.err)
	b.golden(t, "submit_bulk", r)
	b.input = bulkLines(3)
	r = b.run(t, "task", "submit", "--bulk", "-", "--idempotency-key", "load-1")
	require.Zero(t, r.code)
	b.golden(t, "submit_bulk_again", r)

	file, refused := filepath.Join(dir, "tasks.ndjson"), filepath.Join(dir, "refused.ndjson")
	require.NoError(t, os.WriteFile(file, []byte(bulkLines(1)+"nonsense\x1b[31m\n\n"+bulkLines(1)+`{"namespace":"linear_workflow","name":"unheard"}`), 0o600))
	r = b.run(t, "task", "submit", "--bulk", file, "--refused", refused)
	require.Equal(t, 10, r.code)
	r.out = strings.ReplaceAll(r.out, dir, "DIR")
	b.golden(t, "submit_bulk_refused", r)
	kept, err := os.ReadFile(refused)
	require.NoError(t, err)
	require.Equal(t, "nonsense\x1b[31m\n"+`{"namespace":"linear_workflow","name":"unheard"}`+"\n", string(kept))
	r = b.run(t, "task", "submit", "--bulk", file, "--refused", refused)
	require.Equal(t, 1, r.code, "a file that exists is not overwritten")

	r = b.run(t, "task", "submit", "--bulk", file, "--json", "--idempotency-key", "load-2")
	require.Equal(t, 10, r.code)
	require.Empty(t, r.err)
	require.Equal(t, 5, strings.Count(r.out, "\n"))
	require.Contains(t, r.out, `{"line":2,"problem":{"type":"urn:tasker:problem:malformed_request"`)
	require.Contains(t, r.out, `{"summary":{"idempotency_key":"load-2","created":2,"existing":0,"refused":2,"seconds":0}}`)
}

func TestSubmitBulkWithABar(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.terminal = true
	file := filepath.Join(t.TempDir(), "tasks.ndjson")
	require.NoError(t, os.WriteFile(file, []byte(bulkLines(20)+"nonsense\n"), 0o600))
	r := b.run(t, "task", "submit", "--bulk", file)
	require.Equal(t, 10, r.code, r.err)
	require.Contains(t, r.out, "submitted")
	require.Contains(t, r.out, "█")
	require.Contains(t, r.out, "21")
	require.Contains(t, r.out, "line 21: the line is refused at column")
	require.Contains(t, r.out, "submitted 20, 1 refused in ")
}

func TestSubmitBulkThatCannotBe(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--bulk", "no such file"}, 1, "read the submissions"},
		{[]string{"--bulk", "-", linear}, 2, "unexpected argument"},
		{[]string{"--bulk", "-", "--watch"}, 2, "--watch is for a single task"},
		{[]string{linear, "--refused", "x"}, 2, "--refused goes with --bulk"},
		{[]string{"--bulk", "-", "--idempotency-key", "two words"}, 1, "header.Idempotency-Key"},
	} {
		b.input = bulkLines(1)
		r := b.run(t, append([]string{"task", "submit"}, c.args...)...)
		require.Equal(t, c.code, r.code, r.err)
		require.Contains(t, r.err, c.says)
	}
	b.input = bulkLines(1)
	b.Fail(api.Conflict(api.CodeConflict, "not like this"))
	r := b.run(t, "task", "submit", "--bulk", "-")
	require.Equal(t, 10, r.code)
	require.Contains(t, r.err, "line 1: not like this")
}
