package payload

import (
	"fmt"
	"strconv"
	"strings"
)

// Code is a stable identifier of the reason for rejecting a document.
type Code string

// The codes.
const (
	Syntax       Code = "syntax"        // not JSON
	Encoding     Code = "encoding"      // not UTF-8, or a lone surrogate
	NUL          Code = "nul"           // contains the character NUL, which text in PostgreSQL cannot
	DuplicateKey Code = "duplicate_key" // readers would disagree on which one counts
	TooDeep      Code = "too_deep"
	TooLarge     Code = "too_large"
	NumberRange  Code = "number_range" // beyond PostgreSQL's numeric
	NotObject    Code = "not_object"   // JSON, but not an object where one is required
)

// Error says where a document was rejected, why, and what to do.
type Error struct {
	Code    Code
	Pointer string // RFC 6901, "" is the whole document
	Offset  int    // in bytes, of the fault
	Message string // what is wrong and what to write instead
}

// Error returns "at <pointer>: <message>".
func (e *Error) Error() string {
	if e.Pointer == "" {
		return e.Message
	}
	return "at " + e.Pointer + ": " + e.Message
}

// fault is what the scanner records about an error without allocating.
type fault struct {
	code    Code
	offset  int
	message string
}

// locate turns a fault into an error. It walks the document again, which is known to be
// well formed up to the fault.
func (f *fault) locate(raw []byte) error {
	return &Error{Code: f.code, Pointer: pointer(raw, f.offset), Offset: f.offset, Message: f.message}
}

// maxPointer bounds the length of a pointer in an error, in bytes.
const maxPointer = 512

// pointer returns the JSON pointer of the value or key at or around offset in
// raw, which must be well formed up to there.
func pointer(raw []byte, offset int) string {
	type level struct {
		array bool
		index int
		key   []byte // with quotes; nil before the first
	}
	var stack []level
	end := min(offset, len(raw))
	for i := 0; i < end; {
		switch c := raw[i]; c {
		case '{', '[':
			stack = append(stack, level{array: c == '['})
		case '}', ']':
			stack = stack[:max(len(stack)-1, 0)]
		case ',':
			if n := len(stack); n > 0 {
				stack[n-1].index++
				stack[n-1].key = nil
			}
		case '"':
			next := stringEnd(raw, i)
			if n := len(stack); n > 0 && !stack[n-1].array && stack[n-1].key == nil && next <= len(raw) {
				stack[n-1].key = raw[i:next]
			}
			i = next
			continue
		}
		i++
	}
	// The fault may be the key itself, if it is a duplicate.
	if n := len(stack); n > 0 && !stack[n-1].array && stack[n-1].key == nil && end < len(raw) && raw[end] == '"' {
		if next := stringEnd(raw, end); next <= len(raw) {
			stack[n-1].key = raw[end:next]
		}
	}
	var b strings.Builder
	for _, l := range stack {
		switch {
		case b.Len() > maxPointer:
			return b.String() + "/…"
		case l.array:
			b.WriteByte('/')
			b.WriteString(strconv.Itoa(l.index))
		case l.key != nil:
			b.WriteByte('/')
			b.WriteString(pointerEscape(l.key))
		}
	}
	return b.String()
}

// stringEnd returns the offset after the string that begins at raw[i], or more than
// len(raw) if it does not end.
func stringEnd(raw []byte, i int) int {
	for i++; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(raw) + 1
}

func pointerEscape(quoted []byte) string {
	key, ok := unquote(nil, quoted[1:len(quoted)-1])
	if !ok {
		key = quoted[1 : len(quoted)-1]
	}
	return Text(strings.NewReplacer("~", "~0", "/", "~1").Replace(string(key)), 128)
}

// quoteByte formats a byte for a message.
func quoteByte(c byte) string {
	if c >= 0x20 && c < 0x7f {
		return fmt.Sprintf("%q", c)
	}
	return fmt.Sprintf("byte 0x%02x", c)
}
