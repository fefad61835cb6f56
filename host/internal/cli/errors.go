package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

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
	exitConflict    = 6
	exitNoToken     = 7
	exitDenied      = 8
	exitForced      = 9
	exitRefused     = 10
	exitInterrupted = 130
)

// exitCodes describes them for the reference.
var exitCodes = []struct {
	code    int
	meaning string
}{
	{exitOK, "success; when watching: every task is complete"},
	{exitFailure, "failure"},
	{exitUsage, "the command line is invalid"},
	{exitTaskFailed, "a watched task ended in a state other than complete"},
	{exitNotFound, "the named object does not exist"},
	{exitUnreachable, "no host answers"},
	{exitConflict, "the current state does not allow it, such as a retry of a step that has not failed"},
	{exitNoToken, "the host requires a token, or refused the one given (401)"},
	{exitDenied, "the token lacks the permission (403)"},
	{exitForced, "the host stopped, but cancelled steps that were still running and handed them back"},
	{exitRefused, "some lines of a bulk submission were refused"},
	{exitInterrupted, "interrupted"},
}

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// notFoundError says that a named object does not exist.
type notFoundError struct{ err error }

func (e *notFoundError) Error() string { return e.err.Error() }
func (e *notFoundError) Unwrap() error { return e.err }

// errTaskFailed says that a watched task did not end complete. Its state has
// already been shown.
var errTaskFailed = errors.New("not every task is complete")

// ErrForced is returned by [Runtime.Up] if the host stopped in good order but had to
// cancel steps that were still running.
var ErrForced = errors.New("the host stopped, but cancelled steps that were still running and handed them back")

// errShown is a failure that has already been shown.
var errShown = errors.New("failed")

// interrupted reports whether err is due to the end of ctx: a signal.
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
	if _, ok := errors.AsType[*notFoundError](err); ok {
		return exitNotFound
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return exitCodeOf(e)
	}
	switch {
	case errors.Is(err, client.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, errTaskFailed):
		return exitTaskFailed
	case errors.Is(err, ErrForced):
		return exitForced
	case errors.Is(err, errRefused):
		return exitRefused
	default:
		return exitFailure
	}
}

// exitCodeOf is the exit code for a host's answer.
func exitCodeOf(e *client.Error) int {
	switch {
	case e.NotFound():
		return exitNotFound
	case e.Status == http.StatusConflict:
		return exitConflict
	case e.Status == http.StatusUnauthorized:
		return exitNoToken
	case e.Status == http.StatusForbidden:
		return exitDenied
	default:
		return exitFailure
	}
}

// report shows an error and returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	code := exitCode(ctx, err)
	if code == exitInterrupted {
		err = context.Cause(ctx) // not the error of what it interrupted
	}
	switch {
	case code == exitOK, code == exitTaskFailed, code == exitRefused, errors.Is(err, errShown):
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
	Code      string            `json:"code"` // the problem's, or usage, not_found, unreachable, interrupted or failed
	Detail    string            `json:"detail"`
	Status    int               `json:"status,omitempty"`    // the HTTP status, if the host answered
	TaskUUID  string            `json:"task_uuid,omitempty"` // the task that is in the way
	RequestID string            `json:"request_id,omitempty"`
	Issues    []readmodel.Issue `json:"errors,omitempty"`
}

func (a *app) reportJSON(err error, code int) {
	view := failureView{ExitCode: code, Code: "failed", Detail: err.Error()}
	switch code {
	case exitUsage:
		view.Code = "usage"
	case exitNotFound:
		view.Code = "not_found"
	case exitUnreachable:
		view.Code = "unreachable"
	case exitInterrupted:
		view.Code = "interrupted"
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		view.Code, view.Detail, view.Status, view.TaskUUID, view.RequestID, view.Issues = e.Code, e.Detail, e.Status, e.TaskUUID, e.RequestID, e.Issues
	}
	enc := json.NewEncoder(a.err)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(view)
}
