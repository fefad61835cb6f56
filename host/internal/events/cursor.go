package events

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// ErrCursor says that a text is no cursor of this database.
var ErrCursor = errors.New("it is not the id of an event of this database")

// ErrExpired says that a cursor is older than [Config.MaxAge].
var ErrExpired = errors.New("it is too old to go on from")

// Cursor is a place in the order of events: after the first Skip events of what
// the transactions from From up to, not with, To wrote. With Skip = 0 the two are
// equal. Since is before whatever transactions from From on wrote, in whole
// microseconds.
type Cursor struct {
	From, To uint64
	Skip     uint64
	Since    time.Time
}

const cursorVersion = 1

// String returns the cursor as clients keep it.
func (c Cursor) String() string {
	b := make([]byte, 0, 40)
	b = append(b, cursorVersion)
	b = binary.AppendUvarint(b, c.From)
	b = binary.AppendUvarint(b, c.To-c.From)
	b = binary.AppendUvarint(b, c.Skip)
	b = binary.AppendVarint(b, c.Since.UnixMicro())
	return base64.RawURLEncoding.EncodeToString(b)
}

// maxTransaction bounds the numbers of transactions: PostgreSQL's have 64 bits,
// ours a sign.
const maxTransaction = 1 << 62

// ParseCursor reads what String wrote. Errors wrap [ErrCursor].
func ParseCursor(text string) (Cursor, error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) == 0 || b[0] != cursorVersion {
		return Cursor{}, ErrCursor
	}
	b = b[1:]
	var numbers [3]uint64
	for i := range numbers {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > maxTransaction {
			return Cursor{}, ErrCursor
		}
		numbers[i], b = n, b[size:]
	}
	since, size := binary.Varint(b)
	c := Cursor{From: numbers[0], To: numbers[0] + numbers[1], Skip: numbers[2], Since: time.UnixMicro(since).UTC()}
	// One text for one place: nothing is left, and nothing is written longer than it needs.
	if size != len(b) || size <= 0 || (c.Skip == 0) != (c.From == c.To) || c.String() != text {
		return Cursor{}, ErrCursor
	}
	return c, nil
}
