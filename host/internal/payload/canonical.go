package payload

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"unicode/utf8"
)

// Identity returns the identity of a request: the SHA-256, in hexadecimal, of the
// canonical JSON {"context":…,"name":…,"namespace":…,"version":…}. An empty context
// counts as {}. The context should have passed [Check]; one that would not pass is hashed
// by its bytes, as a string.
func Identity(namespace, name, version string, context []byte) string {
	out := make([]byte, 0, len(context)+len(namespace)+len(name)+len(version)+64)
	out = append(out, `{"context":`...)
	switch {
	case len(bytes.TrimSpace(context)) == 0:
		out = append(out, "{}"...)
	case Check(context, Limits{MaxBytes: HardMaxBytes, MaxDepth: HardMaxDepth}) == nil:
		out = canonical(out, context)
	default:
		out = AppendString(out, context)
	}
	out = AppendString(append(out, `,"name":`...), name)
	out = AppendString(append(out, `,"namespace":`...), namespace)
	out = AppendString(append(out, `,"version":`...), version)
	sum := sha256.Sum256(append(out, '}'))
	return hex.EncodeToString(sum[:])
}

// canonical appends the canonical form of a checked document, which all its spellings
// share: keys sorted by their bytes, no white space, the shortest escapes. Numbers stay
// as written, so 1 and 1.0 differ.
func canonical(dst, raw []byte) []byte {
	c := canon{raw: raw, out: dst}
	c.value()
	return c.out
}

// canon rewrites a checked document. It recurses as deep as the document is nested, which
// the check has bounded.
type canon struct {
	raw []byte
	i   int
	out []byte
}

// pair is one member of an object, given by the positions of its key and its end in
// canon.out.
type pair struct{ start, keyEnd, end int }

func (c *canon) value() {
	c.space()
	switch c.raw[c.i] {
	case '{':
		c.object()
	case '[':
		c.array()
	case '"':
		c.text()
	default: // a number or a word: as it is
		start := c.i
		for c.i < len(c.raw) && !bytes.ContainsRune([]byte(",]} \t\r\n"), rune(c.raw[c.i])) {
			c.i++
		}
		c.out = append(c.out, c.raw[start:c.i]...)
	}
}

func (c *canon) array() {
	c.out = append(c.out, '[')
	c.i++
	for c.space(); c.raw[c.i] != ']'; c.space() {
		if c.raw[c.i] == ',' {
			c.out = append(c.out, ',')
			c.i++
		}
		c.value()
	}
	c.i++
	c.out = append(c.out, ']')
}

func (c *canon) object() {
	start := len(c.out)
	c.out = append(c.out, '{')
	c.i++
	var buffer [16]pair
	pairs := buffer[:0]
	for c.space(); c.raw[c.i] != '}'; c.space() {
		if c.raw[c.i] == ',' {
			c.i++
			c.space()
		}
		p := pair{start: len(c.out)}
		c.text()
		p.keyEnd = len(c.out)
		c.out = append(c.out, ':')
		c.space()
		c.i++ // the colon
		c.value()
		c.out = append(c.out, ',')
		p.end = len(c.out)
		pairs = append(pairs, p)
	}
	c.i++
	c.sort(start+1, pairs)
	if len(pairs) > 0 {
		c.out = c.out[:len(c.out)-1] // the last comma
	}
	c.out = append(c.out, '}')
}

// sort sorts the members of an object, which begin at start. It compares their keys
// without the closing quote, which would sort before the characters of longer keys only
// by luck.
func (c *canon) sort(start int, pairs []pair) {
	byKey := func(a, b pair) int { return bytes.Compare(c.key(a), c.key(b)) }
	if slices.IsSortedFunc(pairs, byKey) {
		return
	}
	slices.SortFunc(pairs, byKey)
	members := slices.Clone(c.out[start:])
	out := c.out[:start]
	for _, p := range pairs {
		out = append(out, members[p.start-start:p.end-start]...)
	}
	c.out = out
}

func (c *canon) key(p pair) []byte { return c.out[p.start+1 : p.keyEnd-1] }

// text rewrites the string at i.
func (c *canon) text() {
	end := stringEnd(c.raw, c.i)
	text := c.raw[c.i+1 : end-1]
	c.i = end
	if bytes.IndexByte(text, '\\') >= 0 {
		text, _ = unquote(nil, text)
	}
	c.out = AppendString(c.out, text)
}

func (c *canon) space() {
	for c.i < len(c.raw) && (c.raw[c.i] == ' ' || c.raw[c.i] == '\n' || c.raw[c.i] == '\t' || c.raw[c.i] == '\r') {
		c.i++
	}
}

// AppendString appends text as a JSON string with no more escapes than necessary. Bytes
// that are not UTF-8 become U+FFFD.
func AppendString[T string | []byte](dst []byte, text T) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(text); {
		switch b := text[i]; {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15])
		case b < utf8.RuneSelf:
			dst = append(dst, b)
		default:
			r, n := utf8.DecodeRuneInString(string(text[i:min(i+utf8.UTFMax, len(text))]))
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
	}
	return append(dst, '"')
}
