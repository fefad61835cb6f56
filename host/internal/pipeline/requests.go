package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// taskRequest is a message of the request queue: what a client sends, possibly in its own
// transaction, to have a task created. Other keys are ignored.
type taskRequest struct {
	RequestID string          `json:"request_id"` // sent twice with the same content, it creates one task
	Namespace string          `json:"namespace"`
	Name      string          `json:"task_name"`
	Version   string          `json:"task_version"`
	Input     json.RawMessage `json:"input_data"`
	Metadata  struct {
		RequestedAt *time.Time      `json:"requested_at"`
		Requester   string          `json:"requester"`
		Priority    requestPriority `json:"priority"`
	} `json:"metadata"`
}

// requestPriority accepts the reference's words and plain numbers.
type requestPriority struct{ value *int32 }

var priorityWords = map[string]int32{"Low": 1, "Normal": 2, "High": 3, "Urgent": 4}

// UnmarshalJSON reads a word or an integer.
func (p *requestPriority) UnmarshalJSON(raw []byte) error {
	if bytes.Equal(raw, []byte("null")) {
		return nil
	}
	var word string
	if json.Unmarshal(raw, &word) == nil {
		n, ok := priorityWords[word]
		if !ok {
			return fmt.Errorf("metadata.priority %.20q is not Low, Normal, High, Urgent or an integer", word)
		}
		p.value = &n
		return nil
	}
	n, ok := payload.Integer(raw)
	if !ok || n < 0 || n > math.MaxInt16 {
		return fmt.Errorf("metadata.priority %.20s is not Low, Normal, High, Urgent or an integer from 0 to 32767", raw)
	}
	small := int32(n)
	p.value = &small
	return nil
}

// handleRequests creates the tasks that messages ask for. Each message is removed in the
// transaction that creates its task.
func (b *inbox) handleRequests(messages []pgmq.Message) {
	var all sync.WaitGroup
	for _, m := range messages {
		all.Go(func() { b.handleRequest(m) })
	}
	all.Wait()
}

func (b *inbox) handleRequest(m pgmq.Message) {
	e := b.engine
	t, namespace, span, reason, err := b.parseRequest(m)
	if err != nil {
		traceCreated(span, Submitted{}, err)
		if reason == "" { // not the message's fault: it comes back
			e.log.Warn("task request not handled; it will be read again", "message", m.ID, "error", err)
			b.done(m.ID)
			return
		}
		e.metrics.requests.WithLabelValues("refused").Inc()
		b.setAside(m.ID, reason, err.Error())
		return
	}
	answer, err := e.create(e.work, namespace, t)
	traceCreated(span, answer, err)
	b.done(m.ID)
	_, rejected := errors.AsType[*DuplicateError](err)
	_, reused := errors.AsType[*KeyReusedError](err)
	switch { // the database has set aside what it refused
	case rejected:
		e.metrics.requests.WithLabelValues("refused").Inc()
		b.noteSetAside(m.ID, "duplicate_identity", err.Error())
	case reused:
		e.metrics.requests.WithLabelValues("refused").Inc()
		b.noteSetAside(m.ID, "request_id_reused", err.Error())
	case err != nil:
		e.log.Warn("task request not handled; it will be read again", "message", m.ID, "error", err)
	case answer.Created:
		e.metrics.requests.WithLabelValues("created").Inc()
	default:
		e.metrics.requests.WithLabelValues("duplicate").Inc()
	}
}

// parseRequest turns a message into a task. It returns a reason with an error that is the
// message's own fault.
func (b *inbox) parseRequest(m pgmq.Message) (t store.NewTask, namespace string, span trace.Span, reason string, err error) {
	span = trace.SpanFromContext(context.Background()) // a no-op span until the request is read
	s, reason, err := readRequest(m.Body)
	if err != nil {
		return t, "", span, reason, err
	}
	e := b.engine
	span = e.traceSubmission(extract(headerTrace(m.Headers)), &s)
	t, err = e.prepare(e.work, s)
	if err == nil {
		t.RequestMsg = m.ID
		return t, s.Namespace, span, "", nil
	}
	if _, bad := errors.AsType[*ContextError](err); bad {
		return t, s.Namespace, span, "input_invalid", err
	} else if errors.Is(err, store.ErrNotFound) {
		return t, s.Namespace, span, "unknown_template", fmt.Errorf("there is no template %s/%s %s", s.Namespace, s.Name, s.Version)
	}
	return t, s.Namespace, span, "", err
}

// readRequest reads the body of a message. It returns a reason with every error.
func readRequest(message json.RawMessage) (s Submission, reason string, err error) {
	body, ok := asObject(message)
	if !ok {
		return s, "not_an_object", errors.New("a task request is a JSON object with namespace, task_name, task_version and input_data")
	}
	var r taskRequest
	if err := json.Unmarshal(body, &r); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			want := "a string"
			if wrong.Type.Kind() == reflect.Struct {
				want = "an object"
			}
			err = fmt.Errorf("%s is of the type %s: want %s", wrong.Field, wrong.Value, want) // without the names of Go types
		}
		return s, "malformed", err
	}
	for _, k := range [...]struct{ name, value string }{{"namespace", r.Namespace}, {"task_name", r.Name}, {"task_version", r.Version}} {
		if k.value == "" {
			return s, "missing_key", fmt.Errorf("the key %q is missing or empty", k.name)
		}
	}
	attributes, err := requestAttributes(&r)
	if err != nil {
		return s, "malformed", err
	}
	s = Submission{
		Namespace: r.Namespace, Name: r.Name, Version: r.Version, Context: r.Input,
		Priority: r.Metadata.Priority.value, Attributes: attributes,
	}
	if r.RequestID != "" {
		if len(r.RequestID) > 200 {
			return s, "malformed", errors.New("request_id is longer than 200 bytes")
		}
		s.IdempotencyKey = "request:" + r.RequestID
	}
	return s, "", nil
}

func requestAttributes(r *taskRequest) (json.RawMessage, error) {
	a := map[string]any{"source_system": "task_request_processor"}
	if r.Metadata.Requester != "" {
		a["initiator"] = r.Metadata.Requester
	}
	if r.RequestID != "" {
		a["reason"] = "Task request " + r.RequestID
	}
	if r.Metadata.RequestedAt != nil {
		a["requested_at"] = r.Metadata.RequestedAt
	}
	raw, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("attributes of the request: %w", err)
	}
	return raw, nil
}
