package payload

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
)

// Check reports whether jsonb stores raw unchanged as one JSON value: valid JSON in
// UTF-8, without NUL, lone surrogates or duplicate keys, with numbers in the range of
// numeric, within lim. The error is an [*Error] and names the first fault. Valid
// documents of ordinary shape cost no allocation.
func Check(raw []byte, lim Limits) error { return check(raw, lim, false) }

// CheckObject is like [Check], but requires a JSON object.
func CheckObject(raw []byte, lim Limits) error { return check(raw, lim, true) }

func check(raw []byte, lim Limits, object bool) error {
	lim = lim.withDefaults()
	if len(raw) > lim.MaxBytes {
		return &Error{Code: TooLarge, Offset: lim.MaxBytes, Message: fmt.Sprintf(
			"the document has %d bytes, the limit is %d: keep large data elsewhere and pass a reference", len(raw), lim.MaxBytes)}
	}
	s := scanner{raw: raw, lim: lim, budget: lim.MaxBytes - len(raw)}
	if f := s.document(object); f != nil {
		return f.locate(raw)
	}
	return nil
}

// member is a key of an object that is still open.
type member struct {
	hash       uint64
	start, end int32 // of the text between the quotes
	escaped    bool
}

// smallKeys is how many keys of open objects are stored without allocating.
const smallKeys = 32

// scanner reads a document once, front to back. It keeps its own stack, so the depth of a
// document costs no Go stack. Its buffers are arrays rather than slices, because only
// then do they stay off the heap.
type scanner struct {
	raw    []byte
	lim    Limits
	budget int // bytes by which numbers may still grow when written out
	seed   maphash.Seed
	seeded bool

	depth int
	open  [HardMaxDepth]int32 // per open container: an array is -1, an object where its keys begin

	count int // keys of all open objects
	few   [smallKeys]member
	many  []member // instead of few, once it was full
}

// push stores a key.
func (s *scanner) push(m member) {
	switch {
	case s.many != nil:
		s.many = append(s.many[:s.count], m)
	case s.count < smallKeys:
		s.few[s.count] = m
	default:
		s.many = append(append(make([]member, 0, 8*smallKeys), s.few[:]...), m)
	}
	s.count++
}

// keys returns the keys from index from on.
func (s *scanner) keys(from int32) []member {
	if s.many != nil {
		return s.many[from:s.count]
	}
	return s.few[from:s.count]
}

// document reads the whole text.
func (s *scanner) document(object bool) *fault {
	i := s.space(0)
	if object && i < len(s.raw) && s.raw[i] != '{' {
		return &fault{NotObject, i, "must be a JSON object: write {…}"}
	}
	for {
		next, f := s.value(i) // or the beginning of one
		if f != nil {
			return f
		}
		if next, f = s.after(next); f != nil {
			return f
		}
		if s.depth == 0 {
			if next < len(s.raw) {
				return &fault{Syntax, next, "unexpected data after the value: send one JSON value"}
			}
			return nil
		}
		i = next
	}
}

// value reads a scalar, an empty container, or the opening of a container up to its first
// value, which is read next.
func (s *scanner) value(i int) (int, *fault) {
	for {
		if i >= len(s.raw) {
			return i, s.truncated()
		}
		switch c := s.raw[i]; c {
		case '"':
			end, _, f := s.text(i)
			return end, f
		case '{', '[':
			next, empty, f := s.enter(i, c == '{')
			if f != nil || empty {
				return next, f
			}
			i = next
		case 't':
			return s.word(i, "true")
		case 'f':
			return s.word(i, "false")
		case 'n':
			return s.word(i, "null")
		default:
			if c == '-' || c-'0' <= 9 {
				return s.number(i)
			}
			return i, &fault{Syntax, i, "unexpected " + quoteByte(c) + " where a JSON value should begin"}
		}
	}
}

// enter opens the container at i. It returns where its first value begins or, if it is
// empty, where it ends.
func (s *scanner) enter(i int, object bool) (next int, empty bool, _ *fault) {
	if s.depth >= s.lim.MaxDepth {
		return i, false, &fault{TooDeep, i, fmt.Sprintf("nested deeper than %d levels: flatten the data", s.lim.MaxDepth)}
	}
	next = s.space(i + 1)
	if next >= len(s.raw) {
		return next, false, s.truncated()
	}
	if c := s.raw[next]; object && c == '}' || !object && c == ']' {
		return next + 1, true, nil
	}
	s.depth++
	if !object {
		s.open[s.depth-1] = -1
		return next, false, nil
	}
	s.open[s.depth-1] = int32(s.count) // bounded by HardMaxBytes
	next, f := s.key(next)
	return next, false, f
}

// after reads what follows a value: the ends of containers, and the comma (and key)
// before the next value.
func (s *scanner) after(i int) (int, *fault) {
	for {
		i = s.space(i)
		if s.depth == 0 {
			return i, nil
		}
		first := s.open[s.depth-1]
		object := first >= 0
		if i >= len(s.raw) {
			return i, s.truncated()
		}
		switch c := s.raw[i]; {
		case c == ',':
			i = s.space(i + 1)
			if object {
				return s.key(i)
			}
			return i, nil
		case c == '}' && object:
			if f := s.unique(s.keys(first)); f != nil {
				return i, f
			}
			s.count = int(first)
		case c == ']' && !object:
		case object:
			return i, &fault{Syntax, i, "unexpected " + quoteByte(c) + " after a member: write ',' or '}'"}
		default:
			return i, &fault{Syntax, i, "unexpected " + quoteByte(c) + " after an element: write ',' or ']'"}
		}
		s.depth--
		i++
	}
}

// key reads a key and its colon, and returns where the value begins.
func (s *scanner) key(i int) (int, *fault) {
	if i >= len(s.raw) {
		return i, s.truncated()
	}
	if s.raw[i] != '"' {
		return i, &fault{Syntax, i, "unexpected " + quoteByte(s.raw[i]) + " where a key should begin: keys are strings in double quotes"}
	}
	end, escaped, f := s.text(i)
	if f != nil {
		return i, f
	}
	s.push(s.member(i+1, end-1, escaped))
	i = s.space(end)
	if i >= len(s.raw) {
		return i, s.truncated()
	}
	if s.raw[i] != ':' {
		return i, &fault{Syntax, i, "unexpected " + quoteByte(s.raw[i]) + " after a key: write ':'"}
	}
	return s.space(i + 1), nil
}

func (s *scanner) member(start, end int, escaped bool) member {
	if !s.seeded { // a new seed for each document, so that nobody can make keys collide
		s.seed, s.seeded = maphash.MakeSeed(), true
	}
	m := member{start: int32(start), end: int32(end), escaped: escaped} // bounded by HardMaxBytes
	if escaped {
		var buffer [64]byte
		key, _ := unquote(buffer[:0], s.raw[start:end])
		m.hash = maphash.Bytes(s.seed, key)
	} else {
		m.hash = maphash.Bytes(s.seed, s.raw[start:end])
	}
	return m
}

// pairwise is the largest number of keys compared pairwise; more are sorted.
const pairwise = 12

// unique finds the first duplicate key. It may reorder the keys.
func (s *scanner) unique(keys []member) *fault {
	if len(keys) <= pairwise {
		for j := 1; j < len(keys); j++ {
			for k := range j {
				if s.same(keys[k], keys[j]) {
					return duplicate(keys[j].start)
				}
			}
		}
		return nil
	}
	slices.SortFunc(keys, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.start, b.start))
	})
	first := int32(math.MaxInt32)
	for j := 1; j < len(keys); j++ {
		if s.same(keys[j-1], keys[j]) {
			first = min(first, keys[j].start)
		}
	}
	if first < math.MaxInt32 {
		return duplicate(first)
	}
	return nil
}

func (s *scanner) same(a, b member) bool {
	if a.hash != b.hash {
		return false
	}
	keyA, keyB := s.raw[a.start:a.end], s.raw[b.start:b.end]
	if a.escaped {
		keyA, _ = unquote(nil, keyA)
	}
	if b.escaped {
		keyB, _ = unquote(nil, keyB)
	}
	return bytes.Equal(keyA, keyB)
}

// duplicate returns the fault of a key whose text starts at start.
func duplicate(start int32) *fault {
	return &fault{DuplicateKey, int(start) - 1, "duplicate key in an object: remove one, since readers disagree on which one counts"}
}

func (s *scanner) word(i int, word string) (int, *fault) {
	end := i + len(word)
	if end > len(s.raw) || string(s.raw[i:end]) != word {
		problem := "not a JSON value"
		if end = i + 2; end <= len(s.raw) && string(s.raw[i:end]) == word[:2] {
			problem += ": did you mean " + word + "?"
		}
		return i, &fault{Syntax, i, problem}
	}
	return end, nil
}

func (s *scanner) space(i int) int {
	for i < len(s.raw) && s.raw[i] <= ' ' && (s.raw[i] == ' ' || s.raw[i] == '\n' || s.raw[i] == '\t' || s.raw[i] == '\r') {
		i++
	}
	return i
}

func (s *scanner) truncated() *fault {
	if len(s.raw) == s.space(0) {
		return &fault{Syntax, len(s.raw), "the document is empty: write a JSON value"}
	}
	return &fault{Syntax, len(s.raw), "the document ends in the middle of a value"}
}
