package api

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Cursors are opaque to clients: base64url of a letter for the kind of list and the key
// of the last item shown.

func encodeCursor(kind, key string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(kind + ":" + key))
}

func decodeCursor(kind, cursor string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		if key, ok := strings.CutPrefix(string(raw), kind+":"); ok {
			return key, nil
		}
	}
	return "", badCursor()
}

func badCursor() *problem {
	return newProblem(http.StatusBadRequest, CodeMalformedRequest, "the cursor was not issued by this list",
		Issue{Location: "query.cursor", Detail: "leave it out to start from the beginning"})
}

// after reads the cursor of a numbered list; an empty one means the beginning.
func after(kind, cursor string) (int64, error) {
	if cursor == "" {
		return -1, nil
	}
	key, err := decodeCursor(kind, cursor)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(key, 10, 64)
	if err != nil || n < 0 {
		return 0, badCursor()
	}
	return n, nil
}

// trim cuts a list for which one item too many was requested, and reports whether it was
// there.
func trim[T any](items []T, limit int) (page []T, more bool) {
	if len(items) > limit {
		return items[:limit], true
	}
	if items == nil {
		items = []T{}
	}
	return items, false
}

// taskID reads a task's UUID from a path.
func taskID(s string) (vocab.UUID, error) {
	u, err := vocab.ParseUUID(s)
	if err != nil {
		return vocab.UUID{}, newProblem(http.StatusUnprocessableEntity, CodeValidationFailed,
			"the request has values that are not allowed", Issue{Location: "path.task_uuid", Detail: err.Error()})
	}
	return u, nil
}
