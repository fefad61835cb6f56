package pipeline

import (
	"context"
	"sync"
	"sync/atomic"
)

// budget bounds the memory used by the inputs and results of steps, from when they are
// read until they are recorded: a host that holds thousands of leases must not hold
// thousands of large values. Steps whose inputs do not fit yet wait without them. A
// namespace that uses little memory never waits for the others.
//
// The bound is soft, because the size of a value is only known once it has been read.
type budget struct {
	limit int64 // for all namespaces
	share int64 // guaranteed to each namespace
	used  atomic.Int64
	mean  atomic.Int64 // bytes of a step's inputs, recently

	waiting atomic.Int32
	mu      sync.Mutex
	room    chan struct{} // closed and replaced when room may have become available
}

// usage is what a namespace uses of the budget.
type usage struct{ bytes atomic.Int64 }

const (
	readAtOnce = 16 << 20 // bytes of inputs, approximately
	readMost   = 500      // steps
	firstMean  = 1 << 20  // until the size of inputs is known
)

func newBudget(limit, share int) *budget {
	b := &budget{limit: int64(limit), share: int64(share), room: make(chan struct{})}
	b.mean.Store(firstMean)
	return b
}

func (b *budget) take(u *usage, n int) {
	b.used.Add(int64(n))
	u.bytes.Add(int64(n))
}

func (b *budget) give(u *usage, n int) {
	b.used.Add(int64(-n))
	u.bytes.Add(int64(-n))
	if b.waiting.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.room)
	b.room = make(chan struct{})
}

// spent reports whether a namespace has to wait.
func (b *budget) spent(u *usage) bool { return b.used.Load() >= b.limit && u.bytes.Load() >= b.share }

// await waits until a namespace has room for the inputs of some of n steps. It takes as
// many bytes as past inputs suggest; the caller gives them back once the actual bytes are
// counted. It returns no steps if ctx has ended.
func (b *budget) await(ctx context.Context, u *usage, n int) (steps, taken int) {
	b.waiting.Add(1)
	defer b.waiting.Add(-1)
	for {
		b.mu.Lock()
		room := b.room
		if !b.spent(u) {
			mean := max(b.mean.Load(), 1)
			steps = min(n, int(min(max(readAtOnce/mean, 1), readMost)))
			taken = steps * int(mean)
			b.take(u, taken)
			b.mu.Unlock()
			return steps, taken
		}
		b.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return 0, 0
		}
	}
}

// note updates the average size of inputs.
func (b *budget) note(steps, bytes int) {
	if steps > 0 {
		b.mean.Store((b.mean.Load() + int64(bytes/steps)) / 2)
	}
}
