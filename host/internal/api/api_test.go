package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

const linear = `{"namespace":"linear_workflow","name":"mathematical_sequence","context":{"even_number":6}}`

func setup(t *testing.T) (*apitest.Backend, string) {
	t.Helper()
	b := apitest.New()
	return b, apitest.Serve(t, b.All())
}

func TestOpenAPIIsCheckedIn(t *testing.T) {
	t.Parallel()
	got, err := api.OpenAPI()
	require.NoError(t, err)
	compare(t, "../../../docs/openapi.json", string(got))

	_, socket := setup(t)
	served := call(t, socket, "GET", "/v1/openapi.json", "")
	require.Equal(t, string(got), served.body)
}

func TestTaskLife(t *testing.T) {
	t.Parallel()
	b, socket := setup(t)

	created := call(t, socket, "POST", "/v1/tasks", linear)
	require.Equal(t, http.StatusCreated, created.status, created.body)
	golden(t, "task_created", created.body)
	id := created.field(t, "uuid")
	require.Equal(t, "/v1/tasks/"+id, created.header.Get("Location"))

	b.Finish(id, `{"result":36}`)
	golden(t, "steps", call(t, socket, "GET", "/v1/tasks/"+id+"/steps", "").body)
	golden(t, "history", call(t, socket, "GET", "/v1/tasks/"+id+"/history", "").body)
	golden(t, "task_in_progress", call(t, socket, "GET", "/v1/tasks/"+id, "").body)

	cancelled := call(t, socket, "POST", "/v1/tasks/"+id+"/cancel", `{"reason":"changed my mind"}`)
	require.Equal(t, http.StatusOK, cancelled.status, cancelled.body)
	golden(t, "task_cancelled", cancelled.body)
	again := call(t, socket, "POST", "/v1/tasks/"+id+"/cancel", "")
	require.Equal(t, http.StatusOK, again.status, "cancelling twice is not an error, and the body is optional")
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	first := call(t, socket, "POST", "/v1/tasks", linear, "Idempotency-Key", "order-1")
	require.Equal(t, http.StatusCreated, first.status)
	second := call(t, socket, "POST", "/v1/tasks", linear, "Idempotency-Key", "order-1")
	require.Equal(t, http.StatusOK, second.status)
	require.Equal(t, first.field(t, "uuid"), second.field(t, "uuid"))
	other := call(t, socket, "POST", "/v1/tasks", strings.ReplaceAll(linear, "6", "8"), "Idempotency-Key", "order-1")
	require.Equal(t, http.StatusConflict, other.status)
	golden(t, "problem_idempotency_key_reused", other.body)
}

func TestContextKeepsItsBytes(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	const context = `{ "n": 340282366920938463463374607431768211456, "price": 1.10,
	"huge": 1e400, "html": "<b>&</b>", "b": 1, "a": 2 }`
	created := call(t, socket, "POST", "/v1/tasks",
		`{"namespace":"linear_workflow","name":"mathematical_sequence","context":`+context+`}`)
	require.Equal(t, http.StatusCreated, created.status, created.body)
	var task readmodel.Task
	require.NoError(t, json.Unmarshal([]byte(created.body), &task))
	const compact = `{"n":340282366920938463463374607431768211456,"price":1.10,"huge":1e400,"html":"<b>&</b>","b":1,"a":2}`
	require.Equal(t, compact, string(task.Context), "only white space is removed, in the response")
}

func TestListsComeInPages(t *testing.T) {
	t.Parallel()
	b, socket := setup(t)
	for range 5 {
		require.Equal(t, http.StatusCreated, call(t, socket, "POST", "/v1/tasks", linear).status)
	}
	seen := map[string]bool{}
	cursor, pages := "", 0
	for {
		var page readmodel.TaskPage
		a := call(t, socket, "GET", "/v1/tasks?limit=2&state=pending,in_progress&cursor="+cursor, "")
		require.NoError(t, json.Unmarshal([]byte(a.body), &page), a.body)
		for _, item := range page.Items {
			require.False(t, seen[item.UUID])
			require.Nil(t, item.Context)
			seen[item.UUID] = true
		}
		pages++
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	require.Equal(t, 3, pages)
	require.Len(t, seen, 5)

	for id := range seen {
		b.Finish(id, "1")
		var page readmodel.StepPage
		a := call(t, socket, "GET", "/v1/tasks/"+id+"/steps?limit=3", "")
		require.NoError(t, json.Unmarshal([]byte(a.body), &page), a.body)
		require.Len(t, page.Items, 3)
		a = call(t, socket, "GET", "/v1/tasks/"+id+"/steps?limit=3&cursor="+page.NextCursor, "")
		page = readmodel.StepPage{}
		require.NoError(t, json.Unmarshal([]byte(a.body), &page), a.body)
		require.Len(t, page.Items, 1)
		require.Empty(t, page.NextCursor)

		var history readmodel.TransitionPage
		a = call(t, socket, "GET", "/v1/tasks/"+id+"/history?limit=3", "")
		require.NoError(t, json.Unmarshal([]byte(a.body), &history), a.body)
		require.NotEmpty(t, history.NextCursor)
		break
	}
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	yaml := []string{"Content-Type", "application/yaml"}
	created := call(t, socket, "POST", "/v1/templates?source=a.yaml", "shop/order@2.0.0\nfirst", yaml...)
	require.Equal(t, http.StatusCreated, created.status, created.body)
	require.Equal(t, "/v1/templates/shop/order/2.0.0", created.header.Get("Location"))
	golden(t, "template", created.body)
	require.Equal(t, http.StatusOK, call(t, socket, "POST", "/v1/templates", "shop/order@2.0.0\nfirst", yaml...).status)

	conflict := call(t, socket, "POST", "/v1/templates", "shop/order@2.0.0\nsecond", yaml...)
	require.Equal(t, http.StatusConflict, conflict.status)
	golden(t, "problem_template_exists", conflict.body)

	invalid := call(t, socket, "POST", "/v1/templates/validate?source=dir%2Forder.yaml", "bad", yaml...)
	require.Equal(t, http.StatusUnprocessableEntity, invalid.status)
	golden(t, "problem_template_invalid", invalid.body)

	golden(t, "templates", call(t, socket, "GET", "/v1/templates", "").body)
	require.Equal(t, http.StatusOK, call(t, socket, "GET", "/v1/templates/shop/order/2.0.0", "").status)
	unknown := call(t, socket, "GET", "/v1/templates/shop/order/9.9.9", "")
	require.Equal(t, http.StatusNotFound, unknown.status)
	require.Equal(t, api.CodeTemplateNotFound, unknown.field(t, "code"))

	var page readmodel.TemplatePage
	a := call(t, socket, "GET", "/v1/templates?limit=1", "")
	require.NoError(t, json.Unmarshal([]byte(a.body), &page))
	a = call(t, socket, "GET", "/v1/templates?limit=1&cursor="+page.NextCursor, "")
	page = readmodel.TemplatePage{}
	require.NoError(t, json.Unmarshal([]byte(a.body), &page))
	require.Equal(t, "shop", page.Items[0].Namespace)
}

// The pages of a plugin's history neither repeat nor omit an event.
func TestPluginHistory(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	path := "/v1/plugins/handler/math/history"
	page := func(query string) (page readmodel.PluginHistory) {
		a := call(t, socket, "GET", path+query, "")
		require.Equal(t, http.StatusOK, a.status, a.body)
		require.NoError(t, json.Unmarshal([]byte(a.body), &page), a.body)
		return page
	}
	all := page("")
	require.Len(t, all.Items, 2)
	require.Empty(t, all.NextCursor)
	first := page("?limit=1")
	require.Equal(t, all.Items[:1], first.Items)
	require.NotEmpty(t, first.NextCursor)
	second := page("?limit=1&cursor=" + first.NextCursor)
	require.Equal(t, all.Items[1:], second.Items)
	require.Empty(t, second.NextCursor, "there is no third")
	for _, wrong := range []string{"x", "cDow", "cDot", "ZDoy"} { // p:0, p:- and a dead letter's d:2
		a := call(t, socket, "GET", path+"?cursor="+wrong, "")
		require.Equal(t, http.StatusBadRequest, a.status, wrong)
		require.Equal(t, api.CodeMalformedRequest, a.field(t, "code"))
	}
}

func TestSystem(t *testing.T) {
	t.Parallel()
	b, socket := setup(t)
	golden(t, "plugins", call(t, socket, "GET", "/v1/plugins", "").body)
	golden(t, "doctor", call(t, socket, "GET", "/v1/system/doctor", "").body)
	require.Equal(t, http.StatusOK, call(t, socket, "GET", "/health/live", "").status)
	require.Equal(t, http.StatusOK, call(t, socket, "GET", "/health/ready", "").status)

	b.Fail(api.Unavailable("the database does not answer", 0, nil))
	require.Equal(t, http.StatusOK, call(t, socket, "GET", "/health/live", "").status)
	ready := call(t, socket, "GET", "/health/ready", "")
	require.Equal(t, http.StatusServiceUnavailable, ready.status)
	golden(t, "not_ready", ready.body)
}

// Every version that a template may have can be requested.
func TestSubmitAVersionWithASuffix(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	template := "shop/orders@2.0.0-rc.1\n"
	a := call(t, socket, "POST", "/v1/templates", template, "Content-Type", "application/yaml")
	require.Equal(t, http.StatusCreated, a.status, a.body)
	submission := `{"namespace":"shop","name":"orders","version":"2.0.0-rc.1"}`
	a = call(t, socket, "POST", "/v1/tasks", submission)
	require.Equal(t, http.StatusCreated, a.status, a.body)
	require.Equal(t, "2.0.0-rc.1", a.field(t, "version"))
	answers, _ := bulk(t, socket, submission)
	require.True(t, answers[0].Created)
	a = call(t, socket, "POST", "/v1/tasks", `{"namespace":"shop","name":"orders","version":"2.0-rc"}`)
	require.Equal(t, http.StatusUnprocessableEntity, a.status, a.body)
}
