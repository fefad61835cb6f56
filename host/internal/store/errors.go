package store

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// ErrNotFound is returned for a task, step or template that does not exist.
var ErrNotFound = errors.New("not found")

// Class says what may be done about a database error.
type Class int

const (
	// Permanent: the call can never succeed; its input or our SQL is wrong.
	Permanent Class = iota
	// Retry: the transaction was rolled back and may be repeated at once.
	Retry
	// Unavailable: the database cannot answer now; back off and repeat.
	Unavailable
	// Unknown: the connection broke, and the call may have committed. Repeat it
	// with the same key.
	Unknown
	// BadInput: the database refuses a value of the batch; the others are fine on
	// their own.
	BadInput
	// Cancelled: the caller's context ended. The call may have committed.
	Cancelled
)

// connectionBroke reports whether an error that does not come from the server came
// from the connection.
func connectionBroke(err error) bool {
	_, isNet := errors.AsType[net.Error](err)
	return isNet || pgconn.Timeout(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, pgconn.ErrConnClosed)
}

// IsDuplicate reports whether the database refused a row because its key exists.
func IsDuplicate(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "23505"
}

// IsTimeout reports whether the database ended a statement because it took too
// long. Its transaction was rolled back.
func IsTimeout(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "57014"
}

// Classify sorts an error by what may be done about it. It looks at SQLSTATEs,
// never at message texts.
func Classify(err error) Class {
	if errors.Is(err, ErrRefused) {
		return Unavailable
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Cancelled
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		if pgconn.SafeToRetry(err) {
			return Unavailable
		}
		if _, isConnect := errors.AsType[*pgconn.ConnectError](err); isConnect {
			return Unavailable
		}
		if connectionBroke(err) {
			return Unknown
		}
		return Permanent
	}
	switch {
	case pg.Code == "40001", pg.Code == "40P01", pg.Code == "55P03":
		return Retry
	case strings.HasPrefix(pg.Code, "08"):
		return Unknown
	case strings.HasPrefix(pg.Code, "57P"), strings.HasPrefix(pg.Code, "53"), pg.Code == "57014",
		pg.Code == "25006", strings.HasPrefix(pg.Code, "28"), pg.Code == "42501":
		return Unavailable
	case strings.HasPrefix(pg.Code, "58"), // its files cannot be read or written
		pg.Code == "25P03", pg.Code == "25P04", // the server ended the session: it was idle in a transaction, or the transaction took too long
		pg.Code == "3D000": // the database is being restored
		return Unavailable
	case strings.HasPrefix(pg.Code, "22"), strings.HasPrefix(pg.Code, "23"), strings.HasPrefix(pg.Code, "54"):
		return BadInput
	case pg.Code == "0A000", pg.Code == "26000":
		return Retry // a prepared statement was dropped or its plan changed
	default:
		return Permanent
	}
}
