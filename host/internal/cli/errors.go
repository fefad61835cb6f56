package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Exit codes; the package comment says what they mean.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitTaskFailed  = 3
	exitNotFound    = 4
	exitUnreachable = 5
	exitInterrupted = 130
)

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// errTaskFailed says that a watched task did not end complete. Its state has
// been shown already.
var errTaskFailed = errors.New("not every task is complete")

// errShown is a failure that has been shown already.
var errShown = errors.New("failed")

// interrupted reports whether err comes of the end of ctx: a signal.
func interrupted(ctx context.Context, err error) bool {
	cause := context.Cause(ctx)
	return cause != nil && (errors.Is(err, cause) || errors.Is(err, ctx.Err()))
}

func exitCode(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if interrupted(ctx, err) {
		return exitInterrupted
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		if e.NotFound() {
			return exitNotFound
		}
		return exitFailure
	}
	switch {
	case errors.Is(err, client.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, errTaskFailed):
		return exitTaskFailed
	default:
		return exitFailure
	}
}

// report shows an error and returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	code := exitCode(ctx, err)
	if code == exitInterrupted {
		err = context.Cause(ctx) // not what it cut short
	}
	switch {
	case code == exitOK, code == exitTaskFailed, errors.Is(err, errShown):
	case a.json:
		a.reportJSON(err, code)
	default:
		fmt.Fprintf(a.err, "%s %s\n", a.paint(red, "tasker:"), printable(err.Error()))
		if code == exitUsage {
			fmt.Fprintf(a.err, "usage: %s\n", a.usage)
		}
	}
	return code
}

// failureView is an error as --json prints it on standard error.
type failureView struct {
	ExitCode  int               `json:"exit_code"`
	Code      string            `json:"code"` // the problem's, or usage, unreachable, interrupted or failed
	Detail    string            `json:"detail"`
	Status    int               `json:"status,omitempty"` // of HTTP, if the host answered
	RequestID string            `json:"request_id,omitempty"`
	Issues    []readmodel.Issue `json:"errors,omitempty"`
}

func (a *app) reportJSON(err error, code int) {
	view := failureView{ExitCode: code, Code: "failed", Detail: err.Error()}
	switch code {
	case exitUsage:
		view.Code = "usage"
	case exitUnreachable:
		view.Code = "unreachable"
	case exitInterrupted:
		view.Code = "interrupted"
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		view.Code, view.Detail, view.Status, view.RequestID, view.Issues = e.Code, e.Detail, e.Status, e.RequestID, e.Issues
	}
	enc := json.NewEncoder(a.err)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(view)
}
