package payload

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// Masks for processing eight bytes at a time: the bytes of a word that end the fast path
// of a string.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// special returns nonzero if a byte of the word is a control character, a quote, a
// backslash or not ASCII. It may report false positives after the first such byte, never
// before it.
func special(w uint64) uint64 {
	quote := w ^ (ones * '"')
	slash := w ^ (ones * '\\')
	return (w | (w - ones*0x20) | (quote - ones) | (slash - ones)) & highs
}

// text reads the string at i and returns where it ends and whether it contains escapes.
func (s *scanner) text(i int) (end int, escaped bool, _ *fault) {
	raw := s.raw
	for i++; ; {
		for i+8 <= len(raw) {
			if m := special(binary.LittleEndian.Uint64(raw[i:])); m != 0 {
				i += bits.TrailingZeros64(m) / 8
				break
			}
			i += 8
		}
		if i >= len(raw) {
			return i, escaped, &fault{Syntax, len(raw), "the document ends in the middle of a string"}
		}
		switch c := raw[i]; {
		case c == '"':
			return i + 1, escaped, nil
		case c == '\\':
			escaped = true
			n, f := s.escape(i)
			if f != nil {
				return i, escaped, f
			}
			i += n
		case c < 0x20:
			if c == 0 {
				return i, escaped, &fault{NUL, i, "NUL in a string cannot be stored: remove it"}
			}
			return i, escaped, &fault{Syntax, i, "control character " + quoteByte(c) + " in a string: write it as an escape"}
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(raw[i:])
			if r == utf8.RuneError && n == 1 {
				return i, escaped, &fault{Encoding, i, "not UTF-8 (" + quoteByte(c) + "): encode the text as UTF-8, or bytes as base64"}
			}
			i += n
		}
	}
}

// escape reads the escape at i and returns its length.
func (s *scanner) escape(i int) (int, *fault) {
	if i+1 >= len(s.raw) {
		return 0, &fault{Syntax, len(s.raw), "the document ends in the middle of a string"}
	}
	switch s.raw[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, nil
	case 'u':
	default:
		return 0, &fault{Syntax, i, `unknown escape in a string: JSON has \" \\ \/ \b \f \n \r \t \uXXXX`}
	}
	r, ok := hex4(s.raw, i+2)
	switch {
	case !ok:
		return 0, &fault{Syntax, i, `incomplete escape in a string: write \u and four hexadecimal digits`}
	case r == 0:
		return 0, &fault{NUL, i, `\u0000 (NUL) in a string cannot be stored: remove it`}
	case !utf16.IsSurrogate(r):
		return 6, nil
	}
	if i+8 <= len(s.raw) && s.raw[i+6] == '\\' && s.raw[i+7] == 'u' {
		if low, ok := hex4(s.raw, i+8); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
			return 12, nil
		}
	}
	return 0, &fault{Encoding, i, "half of a surrogate pair in a string: write both halves, high before low"}
}

// hex4 reads four hexadecimal digits at i.
func hex4(raw []byte, i int) (rune, bool) {
	if i+4 > len(raw) {
		return 0, false
	}
	var r rune
	for _, c := range raw[i : i+4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unquote appends the characters of a checked string, given without its quotes. ok is
// false if there is an escape it cannot read.
func unquote(dst, text []byte) (_ []byte, ok bool) {
	for i := 0; i < len(text); {
		c := text[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		if i+1 >= len(text) {
			return dst, false
		}
		switch e := text[i+1]; e {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case '"', '\\', '/':
			dst = append(dst, e)
		case 'u':
			r, ok := hex4(text, i+2)
			if !ok {
				return dst, false
			}
			if utf16.IsSurrogate(r) {
				low, _ := hex4(text, i+8)
				r = utf16.DecodeRune(r, low)
				i += 6
			}
			dst = utf8.AppendRune(dst, r)
			i += 4
		default:
			return dst, false
		}
		i += 2
	}
	return dst, true
}
