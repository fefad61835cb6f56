package store

import (
	"context"
	"time"
)

// paging says how a call of several statements goes on, see [InPages].
type paging struct {
	limit time.Duration
	done  func()
}

type pagingKey struct{}

// InPages returns a context for calls that look at everything there is, a page at a time:
// each page has the given time limit, and done is called when it has ended, whatever its
// result. A limit for the whole call would be too short for some database, or too long to
// notice that the database is gone.
func InPages(ctx context.Context, limit time.Duration, done func()) context.Context {
	return context.WithValue(ctx, pagingKey{}, paging{limit, done})
}

// Page begins a page of a call. Its statements get the returned context, and end must be
// called after them.
func Page(ctx context.Context) (page context.Context, end func()) {
	p, ok := ctx.Value(pagingKey{}).(paging)
	if !ok {
		return ctx, func() {}
	}
	page, cancel := context.WithTimeout(ctx, p.limit)
	return page, func() { cancel(); p.done() }
}

// pageEnded notes the end of a page that had a limit of its own.
func pageEnded(ctx context.Context) {
	if p, ok := ctx.Value(pagingKey{}).(paging); ok {
		p.done()
	}
}
