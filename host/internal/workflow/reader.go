package workflow

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reader turns nodes into values and reports what is wrong with them. Its methods return
// the value and whether there is one; if not, the problem has been noted.
type reader struct {
	problems
	lim Limits
}

// field is one key that a mapping may have.
type field struct {
	name     string
	required bool
	read     func(n *node, path string)
}

// fields reads a mapping that may have the known keys and no others.
func (r *reader) fields(n *node, path string, known []field) {
	names := make([]string, len(known))
	for i := range known {
		names[i] = known[i].name
	}
	if n.kind != mappingNode {
		r.add(n.position, path, "must be a mapping with the keys %s", strings.Join(names, ", "))
		return
	}
	for _, p := range n.pairs {
		i := slices.Index(names, p.key.text)
		if i < 0 {
			r.add(p.key.position, path, "unknown key %q%s", shown(p.key.text), orList(suggest(p.key.text, names), names))
			continue
		}
		if at := join(path, p.key.text); r.given(p, at) {
			known[i].read(p.value, at)
		}
	}
	for _, f := range known {
		if f.required && n.get(f.name) == nil {
			r.add(n.position, path, "key %q is missing", f.name)
		}
	}
}

// given reports whether a key has a value, and notes a problem if not.
func (r *reader) given(p pair, path string) bool {
	if !p.value.lost && p.value.null() {
		r.add(p.key.position, path, "has no value: add one, or remove the key")
	}
	return !p.value.null()
}

func orList(suggestion string, names []string) string {
	if suggestion != "" {
		return suggestion
	}
	return ": the keys are " + strings.Join(names, ", ")
}

func (n *node) null() bool {
	return n.kind == scalarNode && n.plain && resolve(n.text).kind == nullScalar
}

// word reads a string of the given form.
func (r *reader) word(n *node, path string, form form) (string, bool) {
	s, ok := r.text(n, path)
	if ok && !form.pattern.MatchString(s) {
		r.add(n.position, path, "%q is not %s", shown(s), form.words)
		return "", false
	}
	return s, ok
}

func (r *reader) text(n *node, path string) (string, bool) {
	if n.isText() {
		return n.text, true
	}
	r.add(n.position, path, "must be a string, not %s%s", n.what(), hintQuote(n))
	return "", false
}

func (n *node) isText() bool {
	return n.kind == scalarNode && (!n.plain || resolve(n.text).kind == stringScalar)
}

func hintQuote(n *node) string {
	if n.kind != scalarNode || n.null() {
		return ""
	}
	return ": put it in quotes"
}

// maxDescription bounds descriptions, in bytes.
const maxDescription = 4096

func (r *reader) description(n *node, path string) string {
	s, ok := r.text(n, path)
	if ok && len(s) > maxDescription {
		r.add(n.position, path, "has %d bytes, but the limit is %d: shorten it", len(s), maxDescription)
	}
	return s
}

func (r *reader) boolean(n *node, path string) (bool, bool) {
	if n.kind == scalarNode && n.plain {
		if s := resolve(n.text); s.kind == boolScalar {
			return s.json == "true", true
		}
	}
	r.add(n.position, path, "must be true or false, not %s", n.what())
	return false, false
}

func (r *reader) integer(n *node, path string, low, high int) (int, bool) {
	s, ok := r.number(n, path, fmt.Sprintf("a whole number between %d and %d", low, high))
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(s.json)
	if s.kind != intScalar || err != nil || i < low || i > high {
		r.add(n.position, path, "must be a whole number between %d and %d, not %s", low, high, shown(n.text))
		return 0, false
	}
	return i, true
}

// fraction reads a number between 0 and 1.
func (r *reader) fraction(n *node, path string) (float64, bool) {
	s, ok := r.number(n, path, "a number between 0 and 1")
	if !ok {
		return 0, false
	}
	f, err := strconv.ParseFloat(s.json, 64)
	if err != nil || !(f >= 0 && f <= 1) {
		r.add(n.position, path, "must be a number between 0 and 1, not %s", shown(n.text))
		return 0, false
	}
	return math.Abs(f), true // -0 is 0
}

func (r *reader) number(n *node, path, want string) (scalar, bool) {
	if n.kind == scalarNode && n.plain {
		switch s := resolve(n.text); s.kind {
		case intScalar, floatScalar:
			return s, true
		case badScalar:
			r.add(n.position, path, "%s: %s", shown(n.text), s.hint)
			return scalar{}, false
		}
	}
	r.add(n.position, path, "must be %s, not %s", want, n.what())
	return scalar{}, false
}

// duration reads a Go duration such as 1m30s, or a plain number of seconds. It must be a
// whole number of milliseconds, between low and high or, if zero is allowed, 0.
func (r *reader) duration(n *node, path string, low, high time.Duration, zero bool) (time.Duration, bool) {
	want := fmt.Sprintf("between %s and %s", brief(low), brief(high))
	if zero {
		want += ", or 0 for none"
	}
	d, err := parseDuration(n)
	switch {
	case err != nil:
		r.add(n.position, path, "%s: write a duration such as 500ms, 30s or 1m30s, or a number of seconds, %s", err, want)
	case zero && d == 0:
		return 0, true
	case d < low || d > high:
		r.add(n.position, path, "%s is out of range: must be %s", brief(d), want)
	case d%time.Millisecond != 0:
		r.add(n.position, path, "%s is not a whole number of milliseconds", d)
	default:
		return d, true
	}
	return 0, false
}

func parseDuration(n *node) (time.Duration, error) {
	if n.kind != scalarNode {
		return 0, fmt.Errorf("%s is not a duration", n.what())
	}
	text := n.text
	if n.plain {
		switch s := resolve(text); s.kind {
		case intScalar, floatScalar:
			text = s.json + "s"
			if strings.ContainsAny(s.json, "eE") {
				return 0, fmt.Errorf("%s is not a duration", shown(n.text))
			}
		case badScalar, boolScalar:
			return 0, fmt.Errorf("%s is not a duration", shown(n.text))
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration", shown(n.text))
	}
	return d, nil
}

// brief formats a duration without its empty parts: 24h, not 24h0m0s.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// what describes a value in a message.
func (n *node) what() string {
	switch n.kind {
	case mappingNode:
		return "a mapping"
	case sequenceNode:
		return "a list"
	}
	if !n.plain {
		return fmt.Sprintf("the string %q", shown(n.text))
	}
	switch s := resolve(n.text); s.kind {
	case nullScalar:
		return "nothing"
	case stringScalar:
		return fmt.Sprintf("the string %q", shown(n.text))
	case boolScalar:
		return s.json
	default:
		return "the number " + shown(n.text)
	}
}

// shown shortens a text for a message.
func shown(s string) string {
	if r := []rune(s[:min(len(s), 256)]); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

func join(path, key string) string {
	if path == "" {
		return shown(key)
	}
	return path + "." + shown(key)
}
