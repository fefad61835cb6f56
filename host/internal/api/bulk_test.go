package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/api/apitest"
	"github.com/tasker-systems/tasker-host/sdk/task"
)

const ndjson = "application/x-ndjson"

// answers reads the lines of a response, the last of which says how it ended.
func answers(t *testing.T, body string) (lines []task.BulkAnswer, end task.BulkEnd) {
	t.Helper()
	for dec := json.NewDecoder(strings.NewReader(body)); ; {
		var a task.BulkAnswer
		if err := dec.Decode(&a); err == io.EOF {
			break
		} else {
			require.NoError(t, err, body)
		}
		lines = append(lines, a)
	}
	require.NotEmpty(t, lines, body)
	last := lines[len(lines)-1]
	require.NotNil(t, last.End, body)
	return lines[:len(lines)-1], *last.End
}

func bulk(t *testing.T, socket, body string, headers ...string) ([]task.BulkAnswer, task.BulkEnd) {
	t.Helper()
	a := call(t, socket, "POST", "/v1/tasks/bulk", body, append([]string{"Content-Type", ndjson}, headers...)...)
	require.Equal(t, http.StatusOK, a.status, a.body)
	require.Equal(t, ndjson, a.header.Get("Content-Type"))
	return answers(t, a.body)
}

// A line is checked like a single submission.
func TestBulkRefusesAnEmptyTag(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	got, _ := bulk(t, socket, strings.Replace(linear, "{", `{"tags":["a",""],`, 1)+"\n"+linear)
	require.Equal(t, api.CodeValidationFailed, got[0].Problem.Code)
	require.Equal(t, "/tags/1", got[0].Problem.Issues[0].Pointer)
	require.Nil(t, got[1].Problem)
}

func TestBulkAnswersEachLine(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	lines := []string{
		linear,
		``,
		`{"namespace":"linear_workflow","name":"mathematical_sequence","context":{"n":340282366920938463463374607431768211456},"idempotency_key":"mine"}` + "\r",
		`{"namespace":"linear_workflow","name":"mathematical_sequence","contexts":{}}`,
		`{"namespace":"linear_workflow","name":"unheard_of"}`,
		`{"namespace":`,
		`[1]`,
		`{"namespace":"linear_workflow","name":"mathematical_sequence","context":{"a":"\u0000"}}`,
		`{"namespace":"linear_workflow","name":"mathematical_sequence","context":null}`,
		`{"namespace":"linear_workflow","name":"mathematical_sequence","idempotency_key":"two words"}`,
		`{"namespace":"linear_workflow","name":"mathematical_sequence","context":{"a":"` + strings.Repeat("x", 2<<20) + `"}}`,
		linear, // without a newline
	}
	got, end := bulk(t, socket, strings.Join(lines, "\n"))
	require.Equal(t, task.BulkEnd{Created: 3, Refused: 8}, end)
	require.Len(t, got, 11)
	codes := map[int64]string{}
	for _, a := range got {
		require.Equal(t, a.TaskUUID == "", a.Problem != nil)
		if a.Problem != nil {
			codes[a.Line] = a.Problem.Code
			require.NotEmpty(t, a.Problem.RequestID)
			require.NotContains(t, a.Problem.Detail, "xxxx")
		}
	}
	require.Equal(t, map[int64]string{
		4: api.CodeValidationFailed, 5: api.CodeTemplateNotFound, 6: api.CodeMalformedRequest, 7: api.CodeValidationFailed,
		8: api.CodePayloadInvalid, 9: api.CodeValidationFailed, 10: api.CodeValidationFailed, 11: api.CodePayloadTooLarge,
	}, codes)
	require.Equal(t, "/contexts", got[2].Problem.Issues[0].Pointer)
	stored := call(t, socket, "GET", "/v1/tasks/"+got[1].TaskUUID, "")
	require.Contains(t, stored.body, `{"n":340282366920938463463374607431768211456}`)
}

// Lines get keys from their numbers, so that sending them again changes nothing.
func TestBulkIsRepeatable(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	body := strings.Repeat(linear+"\n", 3)
	first, end := bulk(t, socket, body, "Idempotency-Key", "load")
	require.Equal(t, task.BulkEnd{Created: 3}, end)
	again, end := bulk(t, socket, body, "Idempotency-Key", "load")
	require.Equal(t, task.BulkEnd{Existing: 3}, end)
	a := call(t, socket, "POST", "/v1/tasks/bulk?first_line=3", body, "Content-Type", ndjson, "Idempotency-Key", "load")
	shifted, end := answers(t, a.body)
	require.Equal(t, task.BulkEnd{Created: 2, Existing: 1}, end)
	for i := range first {
		require.Equal(t, first[i].TaskUUID, again[i].TaskUUID)
		require.False(t, again[i].Created)
		require.EqualValues(t, i+3, shifted[i].Line)
	}
	require.Equal(t, first[2].TaskUUID, shifted[0].TaskUUID)
}

// Answers arrive while the client is still sending: neither side holds everything.
func TestBulkAnswersWhileItReads(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://tasker/v1/tasks/bulk", body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", ndjson)
	sent := make(chan error, 1)
	go func() {
		_, err := fmt.Fprintln(send, linear)
		sent <- err
	}()
	resp, err := httpClient(t, socket).Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.NoError(t, <-sent)
	in := bufio.NewReader(resp.Body)
	for line := 1; line <= 3; line++ {
		text, err := in.ReadString('\n')
		require.NoError(t, err)
		var a task.BulkAnswer
		require.NoError(t, json.Unmarshal([]byte(text), &a))
		require.EqualValues(t, line, a.Line)
		require.True(t, a.Created)
		if line < 3 {
			_, err = fmt.Fprintln(send, linear)
			require.NoError(t, err)
		}
	}
	require.NoError(t, send.Close())
	rest, err := io.ReadAll(in)
	require.NoError(t, err)
	_, end := answers(t, string(rest))
	require.Equal(t, task.BulkEnd{Created: 3}, end)
}

// The body may be larger than that of any other request.
func TestBulkHasNoLimit(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	wide := `{"namespace":"linear_workflow","name":"mathematical_sequence","context":{"a":"` + strings.Repeat("x", 900<<10) + `"}}` + "\n"
	got, end := bulk(t, socket, strings.Repeat(wide, 3))
	require.Equal(t, task.BulkEnd{Created: 3}, end)
	require.Len(t, got, 3)
	for _, a := range got {
		require.True(t, a.Created)
	}
	got, end = bulk(t, socket, strings.Repeat(linear+"\n", 1200))
	require.EqualValues(t, 1200, end.Created)
	for i, a := range got {
		require.EqualValues(t, i+1, a.Line)
	}
}

func TestBulkTellsWhenToComeBack(t *testing.T) {
	t.Parallel()
	b, socket := setup(t)
	b.Fail(api.Overloaded("too much", 7*time.Second, nil))
	a := call(t, socket, "POST", "/v1/tasks/bulk", linear, "Content-Type", ndjson)
	require.Equal(t, http.StatusServiceUnavailable, a.status, a.body)
	require.Equal(t, api.CodeOverloaded, a.field(t, "code"))
	require.Equal(t, "7", a.header.Get("Retry-After"))

	// What was answered stays; the rest must be sent again.
	got, end := bulk(t, socket, "nonsense\n"+linear+"\nnonsense\n")
	require.Len(t, got, 1)
	require.Equal(t, api.CodeOverloaded, end.Problem.Code)
	require.Equal(t, 7, end.RetryAfterSeconds)
	require.EqualValues(t, 1, end.Refused)
}

func TestBulkRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	_, socket := setup(t)
	for _, c := range []struct {
		path, contentType string
		status            int
	}{
		{"/v1/tasks/bulk", "application/json", http.StatusUnsupportedMediaType},
		{"/v1/tasks/bulk?first_line=0", ndjson, http.StatusUnprocessableEntity},
		{"/v1/tasks/bulk?line=1", ndjson, http.StatusUnprocessableEntity},
	} {
		a := call(t, socket, "POST", c.path, linear, "Content-Type", c.contentType)
		require.Equal(t, c.status, a.status, a.body)
	}
	_, end := bulk(t, socket, "\n\n")
	require.Equal(t, task.BulkEnd{}, end)
}

// A client that stops sending gets an error, and its place is free again; so is that of a
// client whose connection broke in the middle of a line, which is ignored.
func TestBulkGivesUpOnSilentClients(t *testing.T) {
	t.Parallel()
	b := apitest.New()
	socket := apitest.ServeWith(t, b.All(), api.Config{BodyTimeout: 3 * time.Second})
	a := raw(t, socket, "POST /v1/tasks/bulk HTTP/1.1\r\nHost: x\r\nContent-Type: "+ndjson+"\r\nContent-Length: 1000\r\n\r\n"+linear+"\n{\"name")
	require.Equal(t, http.StatusOK, a.status)
	got, end := answers(t, a.body)
	require.Len(t, got, 1)
	require.Equal(t, api.CodeRequestTimeout, end.Problem.Code)
	require.EqualValues(t, 1, end.Created)
}
