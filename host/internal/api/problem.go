package api

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

const problemType = "application/problem+json"

// problem is a readmodel.Problem to be sent. It has what huma requires of an error: a
// status, headers and a content type.
type problem struct {
	readmodel.Problem
	header http.Header
}

func (p *problem) Error() string               { return p.Detail }
func (p *problem) GetStatus() int              { return p.Status }
func (p *problem) GetHeaders() http.Header     { return p.header }
func (p *problem) ContentType(_ string) string { return problemType }

var (
	_ huma.StatusError       = (*problem)(nil)
	_ huma.HeadersError      = (*problem)(nil)
	_ huma.ContentTypeFilter = (*problem)(nil)
)

func newProblem(status int, code, detail string, issues ...Issue) *problem {
	title := strings.ReplaceAll(code, "_", " ")
	return &problem{Problem: readmodel.Problem{
		Type:   "urn:tasker:problem:" + code,
		Title:  strings.ToUpper(title[:1]) + title[1:],
		Status: status,
		Code:   code,
		Detail: detail,
		Issues: issues,
	}}
}

// problemOf classifies an error of the backend. It is the only place that decides what a
// client sees of an error.
func problemOf(err error) *problem {
	if f, ok := errors.AsType[*Fault](err); ok {
		return problemOfFault(f)
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return newProblem(http.StatusNotFound, CodeNotFound, err.Error())
	case errors.Is(err, ErrConflict):
		return newProblem(http.StatusConflict, CodeConflict, err.Error())
	case errors.Is(err, ErrInvalid):
		return newProblem(http.StatusUnprocessableEntity, CodeValidationFailed, err.Error())
	case errors.Is(err, ErrUnavailable):
		return unavailable(err.Error(), 0)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unavailable("the host did not answer in time", 0)
	default:
		return internal()
	}
}

func problemOfFault(f *Fault) *problem {
	switch f.Kind {
	case ErrNotFound:
		return newProblem(http.StatusNotFound, f.Code, f.Detail, f.Issues...)
	case ErrConflict:
		p := newProblem(http.StatusConflict, f.Code, f.Detail, f.Issues...)
		p.TaskUUID = f.TaskUUID
		return p
	case ErrInvalid:
		return newProblem(http.StatusUnprocessableEntity, f.Code, f.Detail, f.Issues...)
	case ErrGone:
		return newProblem(http.StatusGone, f.Code, f.Detail, f.Issues...)
	case ErrUnavailable:
		p := unavailable(f.Detail, f.RetryAfter)
		if f.Code != "" && f.Code != CodeUnavailable {
			p.Problem = newProblem(p.Status, f.Code, f.Detail).Problem
		}
		return p
	default:
		return internal()
	}
}

func internal() *problem {
	return newProblem(http.StatusInternalServerError, CodeInternal,
		"the host could not answer; its log has the details under this request id")
}

func unavailable(detail string, retryAfter time.Duration) *problem {
	p := newProblem(http.StatusServiceUnavailable, CodeUnavailable, detail)
	p.header = http.Header{"Retry-After": {strconv.Itoa(retrySeconds(retryAfter))}}
	return p
}

// retrySeconds converts a wait for Retry-After: whole seconds, at least one.
func retrySeconds(wait time.Duration) int { return max(1, int((wait+time.Second-1)/time.Second)) }

// transform gives every error that is sent the same shape, whether we or huma created it.
// It runs before the status line is written.
func transform(ctx huma.Context, _ string, v any) (any, error) {
	var p *problem
	switch e := v.(type) {
	case *problem:
		p = e
	case *huma.ErrorModel:
		p = problemOfHuma(e)
	default:
		return v, nil
	}
	p.RequestID = requestID(ctx.Context())
	return p, nil
}

// problemOfHuma translates the errors of huma's own checks. The offending values are
// dropped: the client knows what it sent, and the log does not need them.
func problemOfHuma(e *huma.ErrorModel) *problem {
	p := newProblem(e.Status, codeOfStatus(e.Status), e.Detail)
	switch {
	case e.Status == http.StatusInternalServerError:
		p.Detail = internal().Detail
		return p
	case e.Status == http.StatusUnprocessableEntity:
		p.Detail = "the request has values that are not allowed"
	}
	for _, d := range e.Errors {
		if d != nil {
			p.Issues = append(p.Issues, issueOf(d))
		}
	}
	return p
}

func codeOfStatus(status int) string {
	switch status {
	case http.StatusBadRequest:
		return CodeMalformedRequest
	case http.StatusForbidden:
		return CodeForbidden
	case http.StatusNotFound:
		return CodeNotFound
	case http.StatusMethodNotAllowed:
		return CodeMethodNotAllowed
	case http.StatusRequestTimeout:
		return CodeRequestTimeout
	case http.StatusConflict:
		return CodeConflict
	case http.StatusRequestEntityTooLarge:
		return CodePayloadTooLarge
	case http.StatusUnsupportedMediaType:
		return CodeUnsupportedMediaType
	case http.StatusUnprocessableEntity:
		return CodeValidationFailed
	case http.StatusServiceUnavailable:
		return CodeUnavailable
	default:
		if status < 500 {
			return CodeMalformedRequest
		}
		return CodeInternal
	}
}

// exponents matches the numbers from a million on in huma's messages about bounds.
var exponents = regexp.MustCompile(`\b\d(\.\d+)?e\+\d\d\b`)

// plainNumbers writes such numbers as the description does: 31622400.
func plainNumbers(message string) string {
	return exponents.ReplaceAllStringFunc(message, func(text string) string {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return text
		}
		return strconv.FormatFloat(n, 'f', -1, 64)
	})
}

// issueOf turns huma's location ("body.tags[2]") into a JSON pointer. Names of unknown
// fields and parameters come from the client, so they are shortened.
func issueOf(d *huma.ErrorDetail) Issue {
	d = &huma.ErrorDetail{Location: payload.Text(d.Location, 200), Message: payload.Text(plainNumbers(d.Message), 500)}
	rest, inBody := strings.CutPrefix(d.Location, "body")
	if !inBody {
		return Issue{Location: d.Location, Detail: d.Message}
	}
	rest = strings.NewReplacer("~", "~0", "/", "~1").Replace(rest)
	rest = strings.NewReplacer(".", "/", "[", "/", "]", "").Replace(rest)
	return Issue{Pointer: rest, Detail: d.Message}
}
