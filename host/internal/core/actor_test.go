package core

import (
	"encoding/json"
	"fmt"
	"os/user"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// The actor is the request's principal, whatever name the request gives: in the history
// of tasks and steps, for pauses, for dead letters and in the audit.
func TestActorIsThePrincipal(t *testing.T) {
	t.Parallel()
	b := start(t, "[system]\nhttp_listen = \"127.0.0.1:0\"\n[auth]\nenabled = true\n")
	_, _, err := b.api.ApplyTemplate(t.Context(), "three.yaml", []byte(threeSteps))
	require.NoError(t, err)
	token, err := b.api.CreateToken(t.Context(), client.TokenOrder{Name: "deploy", Permissions: []string{"*:operate", "template:administer"}, ExpiresIn: 3600})
	require.NoError(t, err)
	remote, err := client.New(client.Options{URL: "http://" + b.listens(t), Token: token.Bearer})
	require.NoError(t, err)
	t.Cleanup(remote.Close)
	me, err := user.Current()
	require.NoError(t, err)

	for _, c := range []struct {
		api   *client.Client
		by    string
		actor string // of the request
		shown string // in the history
	}{
		{remote, "somebody else", "token:deploy", "token:deploy"},
		{b.api, "ann", "local:" + me.Username, "local:" + me.Username + " (ann)"},
		{b.api, "", "local:" + me.Username, "local:" + me.Username},
	} {
		o := client.Operator{By: c.by, Reason: "for the test"}
		before := b.audited(t)
		submit := func() string {
			task, _, err := c.api.Submit(t.Context(), client.Submission{Namespace: "reload", Name: "three", Version: "1.0.0", Context: json.RawMessage("{}")})
			require.NoError(t, err)
			return task.UUID
		}
		task := submit()
		shown, err := b.api.Task(t.Context(), task)
		require.NoError(t, err)
		require.Equal(t, c.actor, shown.SubmittedBy)
		steps, err := c.api.Steps(t.Context(), task)
		require.NoError(t, err)
		_, err = c.api.ResolveStep(t.Context(), steps[0].UUID, json.RawMessage("1"), o)
		require.NoError(t, err)
		require.Equal(t, c.shown, scalar[string](t, b, "select metadata ->> 'by' from tasker_workflow_steps where task_uuid = $1 and step_no = 0", task))
		_, err = c.api.ResolveTask(t.Context(), task, o)
		require.NoError(t, err)
		const ended = "select metadata ->> 'by' from tasker_task_transitions where task_uuid = $1 and to_state = $2"
		require.Equal(t, c.shown, scalar[string](t, b, ended, task, "resolved_manually"))
		cancelled := submit()
		_, err = c.api.Cancel(t.Context(), cancelled, "a mistake")
		require.NoError(t, err)
		require.Equal(t, c.actor, scalar[string](t, b, ended, cancelled, "cancelled"))
		q, err := c.api.PauseQueue(t.Context(), "reload", o)
		require.NoError(t, err)
		require.Equal(t, c.shown, q.Paused.By)
		_, err = c.api.ResumeQueue(t.Context(), "reload", o)
		require.NoError(t, err)
		b.send(t, "task_requests_queue", `{"nonsense": 1}`)
		const open = "select count(*) from tasker_dead_letters where closed_at is null and kind = 'message'"
		b.eventually(t, "a dead letter", func() bool { return scalar[int](t, b, open) == 1 })
		id := scalar[int](t, b, "select max(dead_letter_id) from tasker_dead_letters")
		letter, err := c.api.DiscardLetter(t.Context(), fmt.Sprint(id), o)
		require.NoError(t, err)
		require.Equal(t, c.shown, letter.Closed.By)

		var actions []string
		for _, e := range b.audited(t)[:len(b.audited(t))-len(before)] {
			require.Equal(t, c.actor, e.Actor)
			require.Equal(t, readmodel.AuditDone, e.Outcome)
			actions = append(actions, e.Action)
		}
		require.Equal(t, []string{
			"POST /v1/dead-letters/{id}/discard", "POST /v1/queues/{namespace}/resume", "POST /v1/queues/{namespace}/pause",
			"POST /v1/tasks/{task_uuid}/cancel", "POST /v1/tasks/{task_uuid}/resolve", "POST /v1/steps/{step_uuid}/resolve",
		}, actions)
	}
}

// audited returns the audit, newest first.
func (b *bed) audited(t *testing.T) []readmodel.AuditEntry {
	t.Helper()
	page, err := b.api.Audit(t.Context(), "", "", 500)
	require.NoError(t, err)
	return page.Items
}
