package backend

import (
	"context"
	"errors"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// ListLetters implements [api.Letters].
func (b *Backend) ListLetters(ctx context.Context, q api.LetterQuery) ([]readmodel.DeadLetter, error) {
	letters, err := b.Store.ListLetters(ctx, store.LetterFilter(q))
	if err != nil {
		return nil, inputFault(err)
	}
	return letters, nil
}

// Letter implements [api.Letters].
func (b *Backend) Letter(ctx context.Context, id int64) (readmodel.DeadLetter, error) {
	letter, err := b.Store.ReadLetter(ctx, id)
	if err != nil {
		return readmodel.DeadLetter{}, letterFault(id, err)
	}
	return letter, nil
}

func letterFault(id int64, err error) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return api.NotFound(api.CodeLetterNotFound, "there is no dead letter %d", id)
	case errors.Is(err, store.ErrLetterClosed):
		return api.Conflict(api.CodeLetterClosed, "dead letter %d is already closed", id)
	case errors.Is(err, store.ErrNoQueue):
		return api.Conflict(api.CodeLetterNotReplayable, "the queue of dead letter %d no longer exists", id)
	default:
		return inputFault(err)
	}
}

// open returns a dead letter that is still open.
func (b *Backend) open(ctx context.Context, id int64) (readmodel.DeadLetter, error) {
	letter, err := b.Letter(ctx, id)
	if err == nil && letter.Closed != nil {
		err = api.Conflict(api.CodeLetterClosed, "dead letter %d was %s at %s", id, letter.Closed.As, letter.Closed.At.Format("2006-01-02 15:04:05Z"))
	}
	return letter, err
}

// Replay implements [api.Letters].
func (b *Backend) Replay(ctx context.Context, id int64, o api.Operator) (readmodel.DeadLetter, error) {
	letter, err := b.open(ctx, id)
	if err != nil {
		return readmodel.DeadLetter{}, err
	}
	if letter.Kind == "step" {
		step, err := vocab.ParseUUID(letter.StepUUID)
		if err != nil {
			return readmodel.DeadLetter{}, err
		}
		task, n, _ := vocab.SplitStepID(step)
		if _, err := b.RetryStep(ctx, api.StepID{Task: task, Number: n}, o); err != nil {
			return readmodel.DeadLetter{}, err
		}
	} else if err := b.Store.ReplayMessage(ctx, id, store.Operator(o)); err != nil {
		return readmodel.DeadLetter{}, letterFault(id, err)
	}
	return b.Letter(ctx, id)
}

// Discard implements [api.Letters].
func (b *Backend) Discard(ctx context.Context, id int64, o api.Operator) (readmodel.DeadLetter, error) {
	if _, err := b.open(ctx, id); err != nil {
		return readmodel.DeadLetter{}, err
	}
	if err := b.Store.DiscardLetter(ctx, id, store.Operator(o)); err != nil {
		return readmodel.DeadLetter{}, letterFault(id, err)
	}
	return b.Letter(ctx, id)
}

// Hosts implements [api.Fleet].
func (b *Backend) Hosts(ctx context.Context) ([]readmodel.Host, error) {
	hosts, err := b.Store.Hosts(ctx)
	return hosts, fault(err)
}

// Workers implements [api.Fleet].
func (b *Backend) Workers(ctx context.Context) ([]readmodel.Worker, error) {
	workers, err := b.Store.Workers(ctx)
	return workers, fault(err)
}

// Queues implements [api.Fleet].
func (b *Backend) Queues(ctx context.Context) ([]readmodel.Queue, error) {
	queues, err := b.Store.Queues(ctx, "")
	return queues, fault(err)
}

// Queue implements [api.Fleet].
func (b *Backend) Queue(ctx context.Context, namespace string) (readmodel.Queue, error) {
	if namespace == "" {
		return readmodel.Queue{}, noQueue(namespace)
	}
	queues, err := b.Store.Queues(ctx, namespace)
	if err != nil {
		return readmodel.Queue{}, inputFault(err)
	}
	if len(queues) == 0 {
		return readmodel.Queue{}, noQueue(namespace)
	}
	return queues[0], nil
}

func noQueue(namespace string) error {
	return api.NotFound(api.CodeQueueNotFound, "there is no namespace %.63q: applying its first template creates it", namespace)
}

// PauseQueue implements [api.Fleet].
func (b *Backend) PauseQueue(ctx context.Context, namespace string, pause bool, o api.Operator) (readmodel.Queue, error) {
	if _, err := b.Store.PauseQueue(ctx, namespace, pause, store.Operator(o)); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return readmodel.Queue{}, noQueue(namespace)
		}
		return readmodel.Queue{}, inputFault(err)
	}
	if !pause {
		b.Repairs.QueueResumed()
	}
	return b.Queue(ctx, namespace)
}
