package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// accepting accepts every task that reaches it and keeps its context.
type accepting struct {
	Tasks
	context []byte
}

func (a *accepting) Submit(_ context.Context, s Submission) (readmodel.Task, bool, error) {
	a.context = s.Context
	return readmodel.Task{UUID: "019ca9d2-7c00-7000-8000-000100000000", Context: s.Context}, true, nil
}

// Whatever a body contains, the response is a task or a client error, and a context that
// gets through can be stored unchanged.
func FuzzSubmission(f *testing.F) {
	for _, seed := range []string{
		`{"namespace":"a","name":"b","context":{"n":1e400}}`, `{"namespace":"a","name":"b","priority":3,"tags":["x"]}`,
		`{"a":{"a":1,"a":2}}`, `{"namespace":"a","name":"b","context":{"a":"\ud800"}}`, `[`, `null`, ``, `{"namespace":null}`,
	} {
		f.Add(seed)
	}
	tasks := &accepting{}
	server, err := New(Config{Socket: "unused"}, Backend{Tasks: tasks}, nil, hclog.NewNullLogger())
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest(http.MethodPost, "/v1/tasks", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		server.socket.ServeHTTP(w, r)
		require.Less(t, w.Code, 500, w.Body.String())
		if w.Code == http.StatusCreated {
			require.NoError(t, payload.CheckObject(tasks.context, payload.ContextLimits()))
			require.True(t, strings.Contains(body, string(tasks.context)) || string(tasks.context) == "{}")
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add(encodeCursor("s", "17"))
	f.Add(encodeCursor("t", "x"))
	f.Add("%%%")
	f.Fuzz(func(t *testing.T, cursor string) {
		n, err := after("s", cursor)
		if err != nil {
			p, ok := errors.AsType[*problem](err)
			require.True(t, ok)
			require.Equal(t, http.StatusBadRequest, p.Status)
			return
		}
		require.GreaterOrEqual(t, n, int64(-1))
	})
}
