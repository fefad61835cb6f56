package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
)

// bodyGate is the middleware in front of every route. It reads the whole body, within
// bounds (bulk submissions do that themselves), refuses what the route does not accept,
// and passes JSON through the payload gate. Behind it a body is one well-formed value
// that everybody reads in the same way.
func bodyGate(limits payload.Limits, timeout time.Duration) func(ctx huma.Context, next func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		body := ctx.Operation().RequestBody
		r, w := humago.Unwrap(ctx)
		if body == nil || (r.ContentLength == 0 && !body.Required) {
			next(ctx)
			return
		}
		mediaType, err := acceptable(r.Header, slices.Sorted(maps.Keys(body.Content)))
		if err != nil {
			writeProblem(w, r, newProblem(http.StatusUnsupportedMediaType, CodeUnsupportedMediaType, err.Error()))
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout))
		data, p := readBody(r.Body, int64(limits.MaxBytes), timeout)
		if p == nil && mediaType == "application/json" && len(data) > 0 {
			p = checkJSON(data, "", limits)
		}
		if p != nil {
			writeProblem(w, r, p)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(data))
		next(ctx)
	}
}

// readBody reads at most limit bytes.
func readBody(body io.Reader, limit int64, timeout time.Duration) ([]byte, *problem) {
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if int64(len(data)) > limit {
		return nil, tooLarge(limit)
	}
	if err == nil {
		return data, nil
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return nil, lastOnConnection(newProblem(http.StatusRequestTimeout, CodeRequestTimeout,
			fmt.Sprintf("the body did not arrive within %s", timeout)))
	}
	return nil, lastOnConnection(newProblem(http.StatusBadRequest, CodeMalformedRequest, "the body is cut off or garbled"))
}

func tooLarge(limit int64) *problem {
	return lastOnConnection(newProblem(http.StatusRequestEntityTooLarge, CodePayloadTooLarge,
		fmt.Sprintf("the body is too large: at most %d bytes are accepted", limit)))
}

// lastOnConnection makes the server close the connection after the answer, because the
// rest of the body is not worth reading.
func lastOnConnection(p *problem) *problem {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set("Connection", "close")
	return p
}

// checkJSON passes a document through the payload gate. at is the JSON pointer to the
// document within the body.
func checkJSON(data []byte, at string, limits payload.Limits) *problem {
	what := "the body"
	if at != "" {
		what = at[1:]
	}
	return refusal(payload.Check(data, limits), at, func(offset int) string {
		line, column := position(data, offset)
		return fmt.Sprintf("%s is refused at line %d, column %d", what, line, column)
	})
}

// checkLine is checkJSON for one line of many.
func checkLine(data []byte, limits payload.Limits) *problem {
	return refusal(payload.Check(data, limits), "", func(offset int) string {
		return fmt.Sprintf("the line is refused at column %d", offset+1)
	})
}

// refusal converts an error of the payload gate into a problem.
func refusal(err error, at string, where func(offset int) string) *problem {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*payload.Error](err)
	if !ok {
		return newProblem(http.StatusBadRequest, CodeMalformedRequest, err.Error())
	}
	status, code := http.StatusBadRequest, CodePayloadInvalid
	switch e.Code {
	case payload.Syntax, payload.NotObject:
		code = CodeMalformedRequest
	case payload.TooLarge:
		status, code = http.StatusRequestEntityTooLarge, CodePayloadTooLarge
	}
	return newProblem(status, code, where(e.Offset), Issue{Pointer: at + e.Pointer, Detail: e.Message})
}

// position returns the 1-based line and column of the byte at an offset.
func position(data []byte, offset int) (line, column int) {
	before := data[:min(offset, len(data))]
	return bytes.Count(before, []byte{'\n'}) + 1, len(before) - bytes.LastIndexByte(before, '\n')
}

// acceptable returns the media type of a body if it is one of those wanted.
func acceptable(h http.Header, want []string) (mediaType string, err error) {
	if e := h.Get("Content-Encoding"); e != "" && e != "identity" {
		return "", fmt.Errorf("content-encoding %.40q is not accepted; send the body as it is", e)
	}
	got, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || !slices.Contains(want, got) {
		return "", fmt.Errorf("content-type %.80q is not accepted here; use %s", h.Get("Content-Type"), strings.Join(want, " or "))
	}
	if c := params["charset"]; c != "" && !strings.EqualFold(c, "utf-8") {
		return "", fmt.Errorf("charset %.40q is not accepted; use UTF-8", c)
	}
	return got, nil
}
