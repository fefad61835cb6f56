package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func setup(t *testing.T) (*apitest.Backend, *client.Client) {
	t.Helper()
	b := apitest.New()
	return b, connect(t, client.Options{Socket: apitest.Serve(t, b.All())})
}

func connect(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	c, err := client.New(o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func linear(context string) client.Submission {
	return client.Submission{Namespace: "linear_workflow", Name: "mathematical_sequence", Context: json.RawMessage(context)}
}

func TestEveryCall(t *testing.T) {
	t.Parallel()
	b, c := setup(t)
	ctx := t.Context()
	urgent := 4
	s := linear(`{"even_number":6}`)
	s.Version, s.Priority, s.Tags, s.Initiator, s.SourceSystem, s.Reason = "1.0.0", &urgent, []string{"a", "b"}, "me", "test", "because"
	s.IdempotencyKey = "k"
	task, created, err := c.Submit(ctx, s)
	require.NoError(t, err)
	require.True(t, created)
	require.Equal(t, 4, task.Priority)
	require.Equal(t, []string{"a", "b"}, task.Tags)
	require.Equal(t, "me/test/because", task.Initiator+"/"+task.SourceSystem+"/"+task.Reason)
	again, created, err := c.Submit(ctx, s)
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, task.UUID, again.UUID)
	other := linear(`{"even_number":8}`)
	other.IdempotencyKey = s.IdempotencyKey
	_, _, err = c.Submit(ctx, other)
	conflict, ok := errors.AsType[*client.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, http.StatusConflict, conflict.Status)
	require.Equal(t, task.UUID, conflict.TaskUUID)

	b.Finish(task.UUID, `{"n":1}`)
	steps, err := c.Steps(ctx, task.UUID)
	require.NoError(t, err)
	require.Len(t, steps, 4)
	history, err := c.History(ctx, task.UUID)
	require.NoError(t, err)
	require.Len(t, history, 4)

	page, err := c.Tasks(ctx, client.TaskFilter{States: []vocab.TaskState{vocab.TaskInProgress}, Namespace: "linear_workflow", Limit: 10})
	require.NoError(t, err)
	require.Len(t, page.Items, 1)
	tagged := client.Submission{Namespace: "linear_workflow", Name: "mathematical_sequence", Tags: []string{"x", "b,c"}}
	labelled, _, err := c.Submit(ctx, tagged)
	require.NoError(t, err)
	for _, tags := range [][]string{{"x"}, {"b,c"}, {"b,c", "x"}} {
		page, err = c.Tasks(ctx, client.TaskFilter{Tags: tags})
		require.NoError(t, err)
		require.Len(t, page.Items, 1)
		require.Equal(t, labelled.UUID, page.Items[0].UUID)
	}
	page, err = c.Tasks(ctx, client.TaskFilter{Tags: []string{"x", "b"}})
	require.NoError(t, err)
	require.Empty(t, page.Items)
	cancelled, err := c.Cancel(ctx, task.UUID, "enough")
	require.NoError(t, err)
	require.Equal(t, vocab.TaskCancelled, cancelled.State)

	_, created, err = c.ApplyTemplate(ctx, "a.yaml", []byte("shop/order@1.0.0"))
	require.NoError(t, err)
	require.True(t, created)
	checked, err := c.ValidateTemplate(ctx, "a.yaml", []byte("shop/order@1.0.0"))
	require.NoError(t, err)
	require.NotEmpty(t, checked.Warnings)
	templates, err := c.Templates(ctx, "", "")
	require.NoError(t, err)
	require.Len(t, templates, 2)
	_, err = c.Template(ctx, "shop", "order", "1.0.0")
	require.NoError(t, err)

	plugins, err := c.Plugins(ctx)
	require.NoError(t, err)
	require.Len(t, plugins, 1)
	report, err := c.Doctor(ctx)
	require.NoError(t, err)
	require.Equal(t, readmodel.DoctorWarn, report.Status)
	b.Fail(api.Unavailable("away", 0, nil))
	health, err := c.Ready(ctx)
	require.NoError(t, err, "not being ready is an answer")
	require.Equal(t, readmodel.HealthUnavailable, health.Status)
}

func TestExactNumbers(t *testing.T) {
	t.Parallel()
	b, c := setup(t)
	const context = `{"even_number":340282366920938463463374607431768211456,"price":1.10,"text":"<a> & \u2028"}`
	task, _, err := c.Submit(t.Context(), linear(context))
	require.NoError(t, err)
	require.Equal(t, context, string(task.Context))
	const result = `{"n":340282366920938463463374607431768211456,"d":0.1000000000000000000000001}`
	for range 4 {
		b.Finish(task.UUID, result)
	}
	steps, err := c.Steps(t.Context(), task.UUID)
	require.NoError(t, err)
	require.Equal(t, result, string(steps[3].Result))
}

func TestProblemsCarryTheHostsText(t *testing.T) {
	t.Parallel()
	b, c := setup(t)
	_, err := c.ValidateTemplate(t.Context(), "order.yaml", []byte("bad"))
	var problem *client.Error
	require.ErrorAs(t, err, &problem)
	require.Equal(t, api.CodeTemplateInvalid, problem.Code)
	require.Equal(t, "the template has 2 problems\n"+
		"  order.yaml:3:7: unknown key \"stepz\"; did you mean \"steps\"?\n"+
		"  order.yaml:9:3: cycle: a → b → a", problem.Error())

	_, _, err = c.Submit(t.Context(), client.Submission{Namespace: "a", Name: "b"})
	require.ErrorAs(t, err, &problem)
	require.True(t, problem.NotFound())
	_, _, err = c.Submit(t.Context(), linear(`{"a":1,"a":2}`))
	require.ErrorContains(t, err, "/context/a")
	_, err = c.Task(t.Context(), "../../health/live")
	require.ErrorContains(t, err, "path.task_uuid", "identifiers are escaped")

	b.Fail(api.Unavailable("the database does not answer", 7*time.Second, nil))
	_, err = c.Plugins(t.Context())
	require.NoError(t, err)
	_, err = c.Tasks(t.Context(), client.TaskFilter{})
	require.ErrorAs(t, err, &problem)
	require.Equal(t, 7*time.Second, problem.RetryAfter)
	require.Contains(t, err.Error(), problem.RequestID)
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	nobody := connect(t, client.Options{Socket: apitest.SocketPath(t)})
	_, err := nobody.Plugins(t.Context())
	require.ErrorIs(t, err, client.ErrUnreachable)
	require.ErrorContains(t, err, "start a host with 'tasker up'")

	deaf := apitest.SocketPath(t)
	l, err := net.Listen("unix", deaf)
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = connect(t, client.Options{Socket: deaf}).Plugins(ctx)
	require.ErrorIs(t, err, client.ErrUnreachable)
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, err = nobody.Plugins(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, client.ErrUnreachable)

	for _, url := range []string{"tasker", "ftp://x", "http://", "://"} {
		_, err := client.New(client.Options{URL: url})
		require.ErrorContains(t, err, "want http://address:port", url)
	}
}

func TestForeignServer(t *testing.T) {
	t.Parallel()
	foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/plugins" {
			_, _ = io.WriteString(w, "<html>hello\x1b[31m")
			return
		}
		http.Error(w, "<html>\x1b[31mno", http.StatusBadGateway)
	}))
	defer foreign.Close()
	c := connect(t, client.Options{URL: foreign.URL + "/"})
	_, err := c.Plugins(t.Context())
	require.ErrorContains(t, err, "does not answer like a host")
	_, err = c.Doctor(t.Context())
	require.ErrorContains(t, err, `502 Bad Gateway: "<html>\x1b[31mno`, "control characters are escaped")
}

func TestWatch(t *testing.T) {
	t.Parallel()
	b, c := setup(t)
	task, _, err := c.Submit(t.Context(), linear(`{}`))
	require.NoError(t, err)
	var seen []int
	last, err := c.Watch(t.Context(), task.UUID, func(s readmodel.Snapshot) {
		seen = append(seen, s.Progress.Completed)
		if s.Progress.Completed < 4 {
			b.Finish(task.UUID, "1")
		}
	})
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 2, 3, 4}, seen)
	require.Equal(t, vocab.TaskComplete, last.State)

	_, err = c.Watch(t.Context(), "019ca9d2-7c00-7000-8000-000900000000", nil)
	var problem *client.Error
	require.ErrorAs(t, err, &problem)
	require.Equal(t, api.CodeTaskNotFound, problem.Code)
	ctx, cancel := context.WithCancel(t.Context())
	open, _, err := c.Submit(t.Context(), linear(`{}`))
	require.NoError(t, err)
	_, err = c.Watch(ctx, open.UUID, func(readmodel.Snapshot) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
}

func TestWatchResumesOverARestart(t *testing.T) {
	t.Parallel()
	b := apitest.New()
	path := apitest.SocketPath(t)
	server, err := api.New(api.Config{Socket: path}, b.All(), nil, hclog.NewNullLogger())
	require.NoError(t, err)
	require.NoError(t, server.Start(t.Context()))
	c := connect(t, client.Options{Socket: path})
	task, _, err := c.Submit(t.Context(), linear(`{}`))
	require.NoError(t, err)

	b.Finish(task.UUID, "1")
	var seen []int
	restarted := make(chan error, 1)
	_, err = c.Watch(t.Context(), task.UUID, func(s readmodel.Snapshot) {
		seen = append(seen, s.Progress.Completed)
		switch s.Progress.Completed {
		case 1:
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				err := server.Stop(ctx)
				b.Finish(task.UUID, "1")
				if err == nil {
					err = server.Start(ctx)
				}
				restarted <- err
			}()
		default:
			if !s.Settled() {
				b.Finish(task.UUID, "1")
			}
		}
	})
	require.NoError(t, err)
	require.NoError(t, <-restarted)
	require.Equal(t, []int{1, 2, 3, 4}, seen, "each change once, in order")
	require.NoError(t, server.Stop(t.Context()))
}
