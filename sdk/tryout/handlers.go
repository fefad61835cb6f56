package tryout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// atOnce is how many copies of an example run concurrently.
const atOnce = 16

const nobody = "tryout.nobody" // a handler that no plugin serves

// handlers checks plugins that run steps.
func (s *suite) handlers(ctx context.Context) {
	slots := s.slots(wire.KindHandler)
	if len(slots) == 0 {
		return
	}
	s.check(ctx, "handlers: an unknown handler", s.withWork(func(ctx context.Context, w *Work) error {
		o, err := w.run(ctx, Step{}.Message(nobody))
		if err != nil {
			return err
		}
		if f := o.GetFailure(); f.GetType() != string(vocab.HandlerNotFound) || f.GetRetryable() {
			return fmt.Errorf("it ends with %s: want the failure HandlerNotFound, not retryable", ended(o))
		}
		return nil
	}))
	s.check(ctx, "handlers: a cancel of an unknown step is ignored", s.withWork(func(ctx context.Context, w *Work) error {
		if err := w.Cancel(1 << 40); err != nil {
			return err
		}
		_, err := w.run(ctx, Step{}.Message(nobody))
		return err
	}))
	s.check(ctx, "handlers: the stream ends when the host has ended its half", s.withWork(func(ctx context.Context, w *Work) error {
		if err := w.stream.CloseSend(); err != nil {
			return err
		}
		select {
		case <-w.ended:
			if !errors.Is(w.err, io.EOF) {
				return fmt.Errorf("it ends with %w: want no error", w.err)
			}
			return nil
		case <-ctx.Done():
			return errors.New("the stream is still open")
		}
	}))
	tried := map[string]bool{}
	for _, e := range s.cfg.Examples {
		tried[e.Handler] = true
		s.check(ctx, "handler "+e.Handler+": the example succeeds", s.withWork(e.once))
		s.check(ctx, fmt.Sprintf("handler %s: the example succeeds %d times at once", e.Handler, atOnce), s.withWork(e.often))
		s.check(ctx, "handler "+e.Handler+": a cancelled step ends", s.withWork(e.cancelled))
	}
	for _, slot := range slots {
		if !tried[slot.GetName()] {
			s.check(ctx, "handler "+slot.GetName(), func(context.Context) error {
				return skipped("it is not called without an example")
			})
		}
	}
}

func (s *suite) withWork(f func(context.Context, *Work) error) func(context.Context) error {
	return func(ctx context.Context) error {
		i, err := s.ready(ctx)
		if err != nil {
			return err
		}
		w, err := i.OpenWork(context.WithoutCancel(ctx)) // each wait has its own timeout and error
		if err != nil {
			return err
		}
		defer w.Close()
		return f(ctx, w)
	}
}

func (e Example) once(ctx context.Context, w *Work) error {
	o, err := w.run(ctx, e.Step.Message(e.Handler))
	if err != nil {
		return err
	}
	return succeeded(o)
}

func (e Example) often(ctx context.Context, w *Work) error {
	var attempts []*Attempt
	for range atOnce {
		a, err := w.Send(e.Step.Message(e.Handler), nil)
		if err != nil {
			return err
		}
		attempts = append(attempts, a)
	}
	for _, a := range attempts {
		o, err := a.Wait(ctx)
		if err != nil {
			return err
		}
		if err := succeeded(o); err != nil {
			return err
		}
	}
	return nil
}

// cancelled checks that a cancelled step gets an outcome. Any outcome will do, because
// the step may have finished first.
func (e Example) cancelled(ctx context.Context, w *Work) error {
	a, err := w.Send(e.Step.Message(e.Handler), nil)
	if err != nil {
		return err
	}
	if err := w.Cancel(a.ID); err != nil {
		return err
	}
	_, err = a.Wait(ctx)
	return err
}

func succeeded(o *pluginv1.Outcome) error {
	switch result := o.GetResult(); {
	case o.GetFailure() != nil:
		return fmt.Errorf("it ends with %s", ended(o))
	case len(result) > wire.MaxResultBytes:
		return fmt.Errorf("the result has %d bytes, more than the %d a step may return", len(result), wire.MaxResultBytes)
	case len(result) > 0 && !json.Valid(result):
		return fmt.Errorf("the result is not JSON: %.100q", result)
	case wire.HasNUL(result) || wire.HasNUL(o.GetMetadata()):
		return errors.New("the result or its metadata has the NUL character in a string: a host refuses it")
	}
	if m := o.GetMetadata(); len(m) > 0 && !isObject(m) {
		return fmt.Errorf("the metadata is not a JSON object: %.100q", m)
	}
	return nil
}

// ended describes an outcome in a few words.
func ended(o *pluginv1.Outcome) string {
	f := o.GetFailure()
	if f == nil {
		return fmt.Sprintf("success and the result %.100s", o.GetResult())
	}
	retryable := ""
	if f.GetRetryable() {
		retryable = " (retryable)"
	}
	return fmt.Sprintf("the failure %s %s%s: %s", f.GetType(), f.GetCode(), retryable, f.GetMessage())
}

// handsBack checks that a step sent after Drain is handed back. Any handler will do,
// because it must not run.
func (s *suite) handsBack(ctx context.Context, w *Work) error {
	if len(s.cfg.Examples) == 0 {
		return nil // if the plugin is wrong, the step would run
	}
	e := s.cfg.Examples[0]
	bounded, cancel := context.WithTimeout(ctx, max(2*time.Second, s.cfg.Patience/5))
	defer cancel()
	o, err := w.run(bounded, e.Step.Message(e.Handler))
	if err != nil {
		return fmt.Errorf("a step sent after Drain: %w", err)
	}
	if !wire.HandsBack(o.GetFailure()) {
		return fmt.Errorf("a step sent after Drain ends with %s: want a retryable failure with code %s, which hands it back", ended(o), wire.CodeCancelled)
	}
	return nil
}
