package pipeline

import "sync"

// batcher collects items for those who process them in batches. Adding never
// blocks: what bounds the number of items is whoever adds them.
type batcher[T any] struct {
	ready chan struct{} // level-triggered: there are items

	mu    sync.Mutex
	items []T
}

func newBatcher[T any]() *batcher[T] { return &batcher[T]{ready: make(chan struct{}, 1)} }

// add appends items.
func (b *batcher[T]) add(items ...T) {
	if len(items) == 0 {
		return
	}
	b.mu.Lock()
	b.items = append(b.items, items...)
	b.mu.Unlock()
	b.signal()
}

// take removes and returns up to n items, oldest first. If some stay, ready is
// signalled again, for the next taker.
func (b *batcher[T]) take(n int) []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.items) <= n {
		items := b.items
		b.items = nil
		return items
	}
	items := make([]T, n)
	copy(items, b.items)
	rest := copy(b.items, b.items[n:])
	clear(b.items[rest:])
	b.items = b.items[:rest]
	b.signal()
	return items
}

func (b *batcher[T]) signal() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// len returns the number of items that wait.
func (b *batcher[T]) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.items)
}
