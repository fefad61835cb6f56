package events

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// ErrCursor says that a text is not a cursor of this database.
var ErrCursor = errors.New("it is not the id of an event in this database")

// ErrExpired says that a cursor is older than [Config.MaxAge].
var ErrExpired = errors.New("it is too old to resume from")

// Cursor is a position in the order of events: after the first Skip events of those
// that the transactions from From up to, but not including, To wrote. If Skip is 0
// the two are equal. Since is earlier than anything that transactions from From on
// wrote, in whole microseconds.
type Cursor struct {
	From, To uint64
	Skip     uint64
	Since    time.Time
}

const cursorVersion = 1

// String returns the cursor in the form that clients keep.
func (c Cursor) String() string {
	b := make([]byte, 0, 40)
	b = append(b, cursorVersion)
	b = binary.AppendUvarint(b, c.From)
	b = binary.AppendUvarint(b, c.To-c.From)
	b = binary.AppendUvarint(b, c.Skip)
	b = binary.AppendVarint(b, c.Since.UnixMicro())
	return base64.RawURLEncoding.EncodeToString(b)
}

// maxTransaction bounds transaction numbers: PostgreSQL's have 64 bits, ours are
// signed.
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
	// There is only one text for a position: nothing may follow, and nothing may be longer than needed.
	if size != len(b) || size <= 0 || (c.Skip == 0) != (c.From == c.To) || c.String() != text {
		return Cursor{}, ErrCursor
	}
	return c, nil
}
