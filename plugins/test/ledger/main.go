// Command ledger is a plugin for end-to-end tests of the host: its steps record
// what they do in a book outside the system, so that a test can compare that
// with what the host reports. The option dir names the book's directory.
//
// Its handler ledger.step does as its step's configuration says: see work.
package main

import (
	"cmp"
	"context"
	"math/rand/v2"
	"time"

	"github.com/tasker-systems/tasker-host/plugins/test/ledger/book"
	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
)

func main() { sdk.Serve(plugin()) }

type options struct {
	Dir string `json:"dir" doc:"The directory of the book."`
}

func plugin() sdk.Part {
	l := &ledger{}
	return sdk.Handlers("ledger", "1.0.0", map[string]handler.Handler{"ledger.step": handler.Func(l.step)},
		sdk.MaxInFlight(1000), sdk.WithOptions(options{}, l.open))
}

type ledger struct{ book *book.Book }

func (l *ledger) open(_ context.Context, o options) error {
	if o.Dir == "" {
		return &sdk.OptionError{Path: "/dir", Message: "give the directory of the book"}
	}
	b, err := book.Open(o.Dir)
	l.book = b
	return err
}

// work is what a step should do.
type work struct {
	MinMS     int64 `json:"min_ms"`     // it takes at least this long,
	MaxMS     int64 `json:"max_ms"`     // and at most this long
	FailFirst int   `json:"fail_first"` // this many attempts fail, and may be repeated
	Permanent bool  `json:"permanent"`  // it fails permanently
}

// gateLook is how often a step checks whether the book is still shut.
const gateLook = 200 * time.Millisecond

func (l *ledger) step(ctx context.Context, s handler.Step) (handler.Result, error) {
	var w work
	if err := s.DecodeConfig(&w); err != nil {
		return handler.Result{}, handler.Invalid("CONFIG", "%v", err)
	}
	entry := book.Entry{Task: s.TaskUUID, Step: s.StepUUID, Name: s.Name, Key: s.IdempotencyKey, Lease: s.LeaseID, Attempt: s.Attempt}
	note := func(e book.Event) error {
		entry.Event = e
		return l.book.Write(entry)
	}
	if err := note(book.Started); err != nil {
		return handler.Result{}, err
	}
	for wait := time.Duration(w.MinMS+rand.Int64N(w.MaxMS-w.MinMS+1)) * time.Millisecond; ; wait = gateLook {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return handler.Result{}, context.Cause(ctx)
		}
		if !l.book.IsShut() {
			break
		}
	}
	var verdict error
	switch {
	case w.Permanent:
		verdict = handler.Permanent("DOOMED", "this step never works")
	case s.Attempt <= w.FailFirst:
		verdict = handler.Retryable(0, "FLAKY", "attempt %d of %d that fail", s.Attempt, w.FailFirst)
	default:
		taken, err := l.book.Effect(s.IdempotencyKey)
		if err != nil {
			return handler.Result{}, err
		}
		event := book.Ignored
		if taken {
			event = book.Accepted
		}
		if err := note(event); err != nil {
			return handler.Result{}, err
		}
	}
	if err := note(book.Returned); err != nil || verdict != nil {
		return handler.Result{}, cmp.Or(verdict, err)
	}
	return handler.JSON(map[string]any{"step": s.Name, "attempt": s.Attempt, "inputs": len(s.Dependencies)})
}
