package payload

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ellipsis ends a shortened text.
const ellipsis = "…"

// Text makes foreign text (error messages, log lines) safe to store and to show on a
// terminal: at most limit bytes, cut at a character boundary and then ended by "…"; NUL
// dropped; control characters, line ends and marks that change the writing direction
// escaped; bytes that are not UTF-8 replaced by U+FFFD. Clean text is returned unchanged.
func Text(s string, limit int) string {
	if len(s) <= limit && clean(s) {
		return s
	}
	var b strings.Builder
	cut := 0 // the longest prefix that leaves room for the ellipsis
	for _, r := range s {
		if n := b.Len(); n+len(ellipsis) <= limit {
			cut = n
		}
		writeRune(&b, r)
		if b.Len() <= limit {
			continue
		}
		if limit < len(ellipsis) {
			return ""
		}
		return b.String()[:cut] + ellipsis
	}
	return b.String()
}

func writeRune(b *strings.Builder, r rune) {
	switch {
	case r == 0:
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\r':
		b.WriteString(`\r`)
	case r == '\t':
		b.WriteString(`\t`)
	case !storable(r) && r < utf8.RuneSelf:
		fmt.Fprintf(b, `\x%02x`, r)
	case !storable(r):
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		b.WriteRune(r)
	}
}

func clean(s string) bool {
	for i, r := range s {
		if !storable(r) || r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD") {
			return false
		}
	}
	return true
}

// storable reports whether a character is kept as it is.
func storable(r rune) bool {
	switch {
	case r >= 0x20 && r < 0x7f:
		return true
	case unicode.IsControl(r), r == '\u2028', r == '\u2029':
		return false
	}
	return !unicode.Is(unicode.Bidi_Control, r)
}
