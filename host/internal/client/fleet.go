package client

import (
	"context"
	"net/url"
	"strconv"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// LetterFilter selects dead letters. Zero values select all open ones.
type LetterFilter struct {
	Kind, Reason, Queue, Namespace string
	OlderThan                      string // a duration such as 24h
	Closed                         bool   // closed ones, too
	Cursor                         string
	Limit                          int
}

func (f *LetterFilter) values() url.Values {
	q := cursorQuery(f.Cursor)
	set(q, "kind", f.Kind)
	set(q, "reason", f.Reason)
	set(q, "queue", f.Queue)
	set(q, "namespace", f.Namespace)
	set(q, "older_than", f.OlderThan)
	if f.Closed {
		q.Set("closed", "true")
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	return q
}

// DeadLetters returns a page of dead letters, newest first.
func (c *Client) DeadLetters(ctx context.Context, f LetterFilter) (readmodel.DeadLetterPage, error) {
	return get[readmodel.DeadLetterPage](ctx, c, "/v1/dead-letters", f.values())
}

// DeadLetter returns a dead letter with its body.
func (c *Client) DeadLetter(ctx context.Context, id string) (readmodel.DeadLetter, error) {
	return get[readmodel.DeadLetter](ctx, c, letterPath(id, ""), nil)
}

// ReplayLetter sends a message again, or runs a failed step again.
func (c *Client) ReplayLetter(ctx context.Context, id string, o Operator) (readmodel.DeadLetter, error) {
	return post[readmodel.DeadLetter](ctx, c, letterPath(id, "/replay"), o)
}

// DiscardLetter closes a dead letter.
func (c *Client) DiscardLetter(ctx context.Context, id string, o Operator) (readmodel.DeadLetter, error) {
	return post[readmodel.DeadLetter](ctx, c, letterPath(id, "/discard"), o)
}

// ReplayLetters replays the next batch of the dead letters that a filter selects.
func (c *Client) ReplayLetters(ctx context.Context, f LetterFilter, o Operator) (readmodel.LetterBatch, error) {
	return post[readmodel.LetterBatch](ctx, c, "/v1/dead-letters/replay?"+f.values().Encode(), o)
}

// DiscardLetters discards the next batch of the dead letters that a filter selects.
func (c *Client) DiscardLetters(ctx context.Context, f LetterFilter, o Operator) (readmodel.LetterBatch, error) {
	return post[readmodel.LetterBatch](ctx, c, "/v1/dead-letters/discard?"+f.values().Encode(), o)
}

func letterPath(id, rest string) string { return "/v1/dead-letters/" + url.PathEscape(id) + rest }

// Hosts lists the hosts of the database.
func (c *Client) Hosts(ctx context.Context) (readmodel.HostPage, error) {
	return get[readmodel.HostPage](ctx, c, "/v1/hosts", nil)
}

// Workers lists the outside workers seen so far.
func (c *Client) Workers(ctx context.Context) (readmodel.WorkerPage, error) {
	return get[readmodel.WorkerPage](ctx, c, "/v1/workers", nil)
}

// Queues lists the queues of all namespaces.
func (c *Client) Queues(ctx context.Context) (readmodel.QueuePage, error) {
	return get[readmodel.QueuePage](ctx, c, "/v1/queues", nil)
}

// Queue returns the queue of one namespace.
func (c *Client) Queue(ctx context.Context, namespace string) (readmodel.Queue, error) {
	return get[readmodel.Queue](ctx, c, queuePath(namespace, ""), nil)
}

// PauseQueue starts no more steps of a namespace.
func (c *Client) PauseQueue(ctx context.Context, namespace string, o Operator) (readmodel.Queue, error) {
	return post[readmodel.Queue](ctx, c, queuePath(namespace, "/pause"), o)
}

// ResumeQueue starts steps of a paused namespace again.
func (c *Client) ResumeQueue(ctx context.Context, namespace string, o Operator) (readmodel.Queue, error) {
	return post[readmodel.Queue](ctx, c, queuePath(namespace, "/resume"), o)
}

func queuePath(namespace, rest string) string {
	return "/v1/queues/" + url.PathEscape(namespace) + rest
}
