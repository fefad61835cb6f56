package pipeline

// batcher collects items to be processed in batches. Adding never blocks: the number of
// items is bounded by those who add them.
type batcher[T any] struct {
	size func(T) int // bytes of an item; a batch holds up to batchBytes, or a single item

	*line
	items []T
}

func newBatcher[T any](l *line, size func(T) int) *batcher[T] {
	return &batcher[T]{size: size, line: l}
}

// add appends items.
func (b *batcher[T]) add(items ...T) {
	if len(items) == 0 {
		return
	}
	b.Lock()
	defer b.Unlock()
	b.items = append(b.items, items...)
	for _, item := range items {
		b.bytes += b.size(item)
	}
	b.waits(len(b.items))
}

// take removes and returns up to n items, oldest first, or none if there are too few for
// another batch beside those in progress. The caller must call done once they are
// processed.
func (b *batcher[T]) take(n int) []T {
	b.Lock()
	defer b.Unlock()
	if !b.begin() {
		return nil
	}
	n, bytes := fitting(b.items[:min(n, len(b.items))], b.size)
	b.bytes -= bytes
	if n == len(b.items) {
		items := b.items
		b.items = nil
		b.waits(0)
		return items
	}
	items := make([]T, n)
	copy(items, b.items)
	rest := copy(b.items, b.items[n:])
	clear(b.items[rest:])
	b.items = b.items[:rest]
	b.waits(rest)
	return items
}

// fitting returns how many items, from the first on, fit in one statement, and their
// bytes: up to batchBytes, but always at least one item.
func fitting[T any](items []T, size func(T) int) (n, bytes int) {
	for n = range items {
		more := size(items[n])
		if n > 0 && bytes+more > batchBytes {
			return n, bytes
		}
		bytes += more
	}
	return len(items), bytes
}

// done reports that a batch has been processed.
func (b *batcher[T]) done() {
	b.Lock()
	defer b.Unlock()
	b.end()
}

// len returns the number of waiting items.
func (b *batcher[T]) len() int {
	b.Lock()
	defer b.Unlock()
	return len(b.items)
}
