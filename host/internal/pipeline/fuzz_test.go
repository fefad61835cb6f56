package pipeline

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Whatever a message of the request queue contains, it is a submission or it is set aside
// with a reason; its attributes are JSON.
func FuzzTaskRequest(f *testing.F) {
	for _, seed := range []string{
		`{"namespace":"a","task_name":"b","task_version":"1.0.0","input_data":{"n":1e400}}`,
		`{"request_id":"r","namespace":"a","task_name":"b","task_version":"1.0.0","metadata":{"priority":"High","requester":"me","requested_at":"2026-01-01T00:00:00Z"}}`,
		`{"namespace":"a","task_name":"b","task_version":"1","metadata":{"priority":-1}}`, `{"metadata":{"priority":1e3}}`, `{"metadata":null}`, `[]`, `null`, ``, `{`,
		`{"namespace":"a","task_name":"b","task_version":"1","metadata":{"requester":"\ud800\u0000"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s, reason, err := readRequest(body)
		if err != nil {
			require.Contains(t, []string{"not_an_object", "malformed", "missing_key"}, reason)
			return
		}
		require.Empty(t, reason)
		require.NotEmpty(t, s.Namespace)
		require.NotEmpty(t, s.Name)
		require.NotEmpty(t, s.Version)
		require.LessOrEqual(t, len(s.IdempotencyKey), 255)
		require.True(t, json.Valid(s.Attributes))
		if s.Priority != nil {
			require.GreaterOrEqual(t, *s.Priority, int32(0))
			require.LessOrEqual(t, *s.Priority, int32(32767))
		}
	})
}

// Whatever a worker posts as a result, it is set aside with a reason, or is an outcome
// that the database can store.
func FuzzStepResult(f *testing.F) {
	const head = `{"step_uuid":"019ca9d2-7c00-7000-8000-000100000001","task_uuid":"019ca9d2-7c00-7000-8000-000100000000",`
	for _, seed := range []string{
		head + `"status":"Success","results":"{\"n\": 340282366920938463463374607431768211456}"}`,
		head + `"status":"Success","results":{"a":"\u0000"},"metadata":null}`,
		head + `"status":"Failed","error":{"message":"\ud800","error_type":"X","retryable":true,"context":[]}}`,
		head + `"status":"Timeout","orchestration_metadata":{"headers":{"retry-after":"Wed, 21 Oct 2099 07:28:00 GMT"},"backoff_hint":{"delay_seconds":1e300}}}`,
		head + `"status":"Skipped","lease_id":"00000000-0000-0000-0000-000000000000"}`, head + `"status":"cancelled","error":null}`, head + `"status":7}`,
		`{"step_uuid":"019ca9d2-7c00-7000-8000-000100000000","task_uuid":"019ca9d2-7c00-7000-8000-000100000000","status":"Success"}`, `null`, `[`, ``,
	} {
		f.Add([]byte(seed))
	}
	limits := payload.Limits{MaxBytes: 1 << 20, MaxDepth: 32}
	e := New(Config{Results: limits}, nil, nil, nil, prometheus.NewRegistry(), hclog.NewNullLogger())
	in := e.newInbox("results")
	f.Fuzz(func(t *testing.T, body []byte) {
		r, reason, err := in.parseResult(pgmq.Message{ID: 7, Body: body})
		if err != nil {
			require.Contains(t, []string{"not_an_object", "malformed", "foreign_step"}, reason)
			return
		}
		require.EqualValues(t, 7, r.message)
		require.GreaterOrEqual(t, r.RetryAfter, time.Duration(0))
		require.GreaterOrEqual(t, r.Number, int32(0))
		if r.Outcome == vocab.OutcomeSuccess {
			require.Empty(t, r.Error)
			if len(r.Result) > 0 {
				require.NoError(t, payload.Check(r.Result, limits))
			}
			if len(r.Metadata) > 0 {
				require.NoError(t, payload.CheckObject(r.Metadata, limits))
			}
			return
		}
		require.NoError(t, payload.CheckObject(r.Error, payload.Limits{MaxBytes: 1 << 20, MaxDepth: 64}))
		require.Empty(t, r.Result)
	})
}

// A null in an optional field counts as absent and is not an error.
func TestNullMetadataOfAResult(t *testing.T) {
	t.Parallel()
	in := New(Config{Results: payload.Limits{MaxBytes: 1 << 20, MaxDepth: 32}}, nil, nil, nil, prometheus.NewRegistry(), hclog.NewNullLogger()).newInbox("results")
	r, _, err := in.parseResult(pgmq.Message{Body: json.RawMessage(`{"step_uuid":"019ca9d2-7c00-7000-8000-000100000001",
		"task_uuid":"019ca9d2-7c00-7000-8000-000100000000","status":"Success","results":null,"metadata":null,"error":null,"orchestration_metadata":null}`)})
	require.NoError(t, err)
	require.Equal(t, vocab.OutcomeSuccess, r.Outcome, "%s", r.Error)
	require.Empty(t, r.Metadata)
	require.JSONEq(t, "null", string(r.Result))
}
