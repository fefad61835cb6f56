package client_test

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	public "github.com/tasker-systems/tasker-host/sdk/client"
	"github.com/tasker-systems/tasker-host/sdk/task"
)

func many(n int) func(yield func(public.Submission) bool) {
	return func(yield func(public.Submission) bool) {
		for i := range n {
			if !yield(linear(fmt.Sprintf(`{"even_number":%d}`, 2*i))) {
				return
			}
		}
	}
}

// ledger records answers, which must come once for each line and in order.
type ledger struct {
	t       *testing.T
	last    int64
	tasks   map[string]bool
	refused map[int64]string // lines by their numbers
}

func newLedger(t *testing.T) *ledger {
	return &ledger{t: t, tasks: map[string]bool{}, refused: map[int64]string{}}
}

func (l *ledger) answered(a task.BulkAnswer, line []byte) {
	require.Greater(l.t, a.Line, l.last)
	l.last = a.Line
	if a.Problem != nil {
		l.refused[a.Line] = string(line)
		return
	}
	require.False(l.t, l.tasks[a.TaskUUID], "two lines made one task")
	l.tasks[a.TaskUUID] = true
}

func TestSubmitAll(t *testing.T) {
	t.Parallel()
	_, c := setup(t)
	l := newLedger(t)
	result, err := c.SubmitAll(t.Context(), many(6000), public.BulkOptions{Answered: l.answered})
	require.NoError(t, err)
	require.NotEmpty(t, result.IdempotencyKey)
	require.Equal(t, public.BulkResult{IdempotencyKey: result.IdempotencyKey, Created: 6000}, result)
	require.Len(t, l.tasks, 6000)
	require.EqualValues(t, 6000, l.last)

	again, err := c.SubmitAll(t.Context(), many(10), public.BulkOptions{IdempotencyKey: result.IdempotencyKey})
	require.NoError(t, err)
	require.EqualValues(t, 10, again.Existing)
	none, err := c.SubmitAll(t.Context(), many(0), public.BulkOptions{})
	require.NoError(t, err)
	require.Zero(t, none.Created+none.Existing+none.Refused)
}

// Lines that are not JSON are not sent. They keep their numbers, so that the others keep
// their keys, and are answered in their place.
func TestSubmitAllRefusesWhatIsNoJSON(t *testing.T) {
	t.Parallel()
	_, c := setup(t)
	submissions := func(contexts ...string) iter.Seq[public.Submission] {
		return func(yield func(public.Submission) bool) {
			for _, context := range contexts {
				if !yield(linear(context)) {
					return
				}
			}
		}
	}
	const two, four, six = `{"even_number":2}`, `{"even_number":4}`, `{"even_number":6}`
	l, problems := newLedger(t), map[int64]*task.Problem{}
	result, err := c.SubmitAll(t.Context(), submissions("{", two, "nonsense", `{}, "name":"x"`, four, "{\"a\":\n2", six, "{]"), public.BulkOptions{
		Answered: func(a task.BulkAnswer, line []byte) {
			l.answered(a, line)
			require.Equal(t, a.Problem == nil, line != nil)
			problems[a.Line] = a.Problem
		},
	})
	require.NoError(t, err)
	require.Equal(t, public.BulkResult{IdempotencyKey: result.IdempotencyKey, Created: 3, Refused: 5}, result)
	require.Equal(t, map[int64]string{1: "", 3: "", 4: "", 6: "", 8: ""}, l.refused)
	require.Len(t, problems, 8)
	refusal := public.Error{Problem: *problems[3]}
	require.Equal(t, api.CodeMalformedRequest, refusal.Code)
	require.EqualError(t, &refusal, "the submission was not sent: its context is not JSON: /context: invalid character 'o' in literal null (expecting 'u')")

	mended, err := c.SubmitAll(t.Context(), submissions("{", two, six), public.BulkOptions{IdempotencyKey: result.IdempotencyKey})
	require.NoError(t, err)
	require.EqualValues(t, 1, mended.Existing)
	require.EqualValues(t, 1, mended.Created, "the third had made nothing under its key")
	require.EqualValues(t, 1, mended.Refused)
	none, err := c.SubmitAll(t.Context(), submissions("{", "{"), public.BulkOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 2, none.Refused)
}

func TestSubmitLinesRefusesOnlyWhatIsWrong(t *testing.T) {
	t.Parallel()
	_, c := setup(t)
	const good = `{"namespace":"linear_workflow","name":"mathematical_sequence"}`
	l := newLedger(t)
	result, err := c.SubmitLines(t.Context(), strings.NewReader("\n"+good+"\r\nnonsense\n\n"+good+"\n{}\n"+good), public.BulkOptions{Answered: l.answered})
	require.NoError(t, err)
	require.EqualValues(t, 3, result.Created)
	require.EqualValues(t, 2, result.Refused)
	require.Equal(t, map[int64]string{3: "nonsense\n", 6: "{}\n"}, l.refused)

	broken := io.MultiReader(strings.NewReader(good+"\n"), errReader{})
	result, err = c.SubmitLines(t.Context(), broken, public.BulkOptions{})
	require.ErrorContains(t, err, "the disk is gone")
	require.EqualValues(t, 1, result.Created, "what was read before counts")
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

// cutter passes connections on to a socket, and cuts each after a number of bytes of
// answers.
func cutter(t *testing.T, socket string, most int64) (path string, cuts *atomic.Int64) {
	t.Helper()
	path, cuts = apitest.SocketPath(t), &atomic.Int64{}
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", socket)
			if err != nil {
				_ = in.Close()
				continue
			}
			all.Go(func() {
				_, _ = io.Copy(out, in)
				_ = out.Close()
			})
			all.Go(func() {
				if n, _ := io.CopyN(in, out, most); n == most {
					cuts.Add(1)
				}
				_ = in.Close()
				_ = out.Close()
			})
		}
	})
	return path, cuts
}

// However often the connection breaks, each line creates one task and has one answer.
func TestBulkGoesOnWhereItWasCutOff(t *testing.T) {
	t.Parallel()
	b := apitest.New()
	path, cuts := cutter(t, apitest.Serve(t, b.All()), 60_000)
	c := connect(t, client.Options{Socket: path})
	l := newLedger(t)
	var waited atomic.Int64
	result, err := c.SubmitAll(t.Context(), many(3000), public.BulkOptions{
		Answered: l.answered, Waiting: func(error, time.Duration) { waited.Add(1) },
	})
	require.NoError(t, err)
	require.Positive(t, cuts.Load())
	require.Positive(t, waited.Load())
	require.EqualValues(t, 3000, result.Created+result.Existing)
	require.Len(t, l.tasks, 3000)
}

func TestBulkWaitsForAHostWithoutRoom(t *testing.T) {
	t.Parallel()
	b, c := setup(t)
	b.Fail(api.Overloaded("no room", time.Second, nil))
	var pauses []time.Duration
	l := newLedger(t)
	result, err := c.SubmitAll(t.Context(), many(20), public.BulkOptions{Answered: l.answered, Waiting: func(err error, pause time.Duration) {
		require.ErrorContains(t, err, "no room")
		pauses = append(pauses, pause)
		b.Fail(nil)
	}})
	require.NoError(t, err)
	require.EqualValues(t, 20, result.Created)
	require.Len(t, l.tasks, 20)
	require.Len(t, pauses, 1)
	require.GreaterOrEqual(t, pauses[0], time.Second, "what the host asked for is honoured")
	require.LessOrEqual(t, pauses[0], 1500*time.Millisecond)
}

func TestBulkGivesUp(t *testing.T) {
	t.Parallel()
	b, c := setup(t)
	b.Fail(api.Unavailable("away", 0, nil))
	_, err := c.SubmitAll(t.Context(), many(2), public.BulkOptions{Patience: time.Millisecond})
	require.ErrorContains(t, err, "away")

	nobody := connect(t, client.Options{Socket: apitest.SocketPath(t)})
	_, err = nobody.SubmitAll(t.Context(), many(2), public.BulkOptions{Waiting: func(error, time.Duration) {
		t.Error("where nobody listens nothing is waited for")
	}})
	require.ErrorIs(t, err, client.ErrUnreachable)
}

// A single submission is repeated if the host says that it did nothing; after an
// ambiguous answer, only if it has a key.
func TestSubmitIsRepeatedIfThatIsHarmless(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		code   string
		key    string
		calls  int64
	}{
		{http.StatusServiceUnavailable, api.CodeOverloaded, "", 2},
		{http.StatusServiceUnavailable, api.CodeUnavailable, "", 2},
		{http.StatusTooManyRequests, api.CodeTooManyRequests, "", 2},
		{http.StatusServiceUnavailable, api.CodeOutcomeUnknown, "", 1},
		{http.StatusServiceUnavailable, api.CodeOutcomeUnknown, "k", 2},
		{http.StatusInternalServerError, api.CodeInternal, "k", 1},
		{http.StatusBadGateway, "", "", 1}, // from a proxy in front of the host
		{http.StatusBadGateway, "", "k", 2},
		{http.StatusGatewayTimeout, "", "k", 2},
		{http.StatusConflict, api.CodeIdempotencyKeyReused, "k", 1},
	} {
		var calls atomic.Int64
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if calls.Add(1) == 1 {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(c.status)
				_, _ = fmt.Fprintf(w, `{"status":%d,"code":%q,"detail":"not now"}`, c.status, c.code)
				return
			}
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"uuid":"019ca9d2-7c00-7000-8000-000100000000"}`)
		}))
		submission := linear(`{}`)
		submission.IdempotencyKey = c.key
		_, created, err := connect(t, client.Options{URL: s.URL}).Submit(t.Context(), submission)
		require.Equal(t, c.calls, calls.Load(), c)
		require.Equal(t, c.calls == 2, err == nil, c)
		require.Equal(t, err == nil, created)
		s.Close()
	}
}
