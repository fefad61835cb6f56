package workflow

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
)

// object reads a mapping as a JSON object that can be stored. It also returns the node,
// for merging; the node is nil if something was wrong.
func (r *reader) object(n *node, path string) (*node, json.RawMessage) {
	if n.kind != mappingNode {
		r.add(n.position, path, "must be a mapping, not %s", n.what())
		return nil, nil
	}
	w := jsonWriter{limit: r.lim.MaxConfig}
	w.value(n, path, 0)
	if len(w.faults) > 0 {
		for _, f := range w.faults {
			r.add(position{f.Line, f.Col}, f.Path, "%s", f.Message)
		}
		return nil, nil
	}
	if err := payload.CheckObject(w.out, payload.Limits{MaxBytes: r.lim.MaxConfig}); err != nil {
		r.addPayload(n, path, err)
		return nil, nil
	}
	return n, w.out
}

// addPayload reports a fault that the gate found in the JSON of n, at its place in the
// source.
func (r *reader) addPayload(n *node, path string, err error) {
	at := n.position
	if refused, ok := errors.AsType[*payload.Error](err); ok {
		at, path = n.find(path, splitPointer(refused.Pointer))
		r.add(at, path, "%s", refused.Message)
		return
	}
	r.add(at, path, "%s", err)
}

// find follows a JSON pointer as far as it leads.
func (n *node) find(path string, tokens []string) (position, string) {
	at := n.position
	for _, t := range tokens {
		switch n.kind {
		case mappingNode:
			next := n.get(t)
			if next == nil {
				return at, path
			}
			for i := range n.pairs {
				if n.pairs[i].key.text == t {
					at = n.pairs[i].key.position
				}
			}
			n, path = next, join(path, t)
		case sequenceNode:
			i, err := strconv.Atoi(t)
			if err != nil || i < 0 || i >= len(n.items) {
				return at, path
			}
			n = n.items[i]
			at, path = n.position, path+"["+t+"]"
		default:
			return at, path
		}
	}
	return at, path
}

func splitPointer(pointer string) []string {
	if pointer == "" {
		return nil
	}
	tokens := strings.Split(pointer[1:], "/")
	for i, t := range tokens {
		tokens[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(t)
	}
	return tokens
}

// jsonWriter writes a node as JSON, numbers with the digits of the source. It stops at
// its limits, which also bounds the cost of aliases that multiply.
type jsonWriter struct {
	out    []byte
	limit  int
	faults []Problem
	full   bool // a limit was reached: nothing more is written
}

func (w *jsonWriter) value(n *node, path string, depth int) {
	switch {
	case w.full:
		return
	case len(w.out) > w.limit:
		w.full = true
		w.fail(n, path, "exceeds "+strconv.Itoa(w.limit)+" bytes as JSON: store large data elsewhere and refer to it here")
		return
	case depth > payload.DefaultMaxDepth:
		w.full = true
		w.fail(n, path, "is nested deeper than "+strconv.Itoa(payload.DefaultMaxDepth)+" levels: flatten it")
		return
	}
	switch n.kind {
	case mappingNode:
		w.out = append(w.out, '{')
		for i, p := range n.pairs {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.text(p.key.text)
			w.out = append(w.out, ':')
			w.value(p.value, join(path, p.key.text), depth+1)
		}
		w.out = append(w.out, '}')
	case sequenceNode:
		w.out = append(w.out, '[')
		for i, item := range n.items {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.value(item, path+"["+strconv.Itoa(i)+"]", depth+1)
		}
		w.out = append(w.out, ']')
	case scalarNode:
		w.scalar(n, path)
	}
}

func (w *jsonWriter) scalar(n *node, path string) {
	if !n.plain {
		w.text(n.text)
		return
	}
	switch s := resolve(n.text); s.kind {
	case stringScalar:
		w.text(n.text)
	case badScalar:
		w.fail(n, path, shown(n.text)+": "+s.hint)
	default:
		w.out = append(w.out, s.json...)
	}
}

// text writes a string, which is UTF-8: nodes contain nothing else.
func (w *jsonWriter) text(s string) { w.out = payload.AppendString(w.out, s) }

func (w *jsonWriter) fail(n *node, path, message string) {
	w.faults = append(w.faults, Problem{n.line, n.col, path, message})
	w.full = w.full || len(w.faults) >= maxProblems
}

// merge merges one JSON value over another: objects key by key, anything else as a whole.
// Both have been written as JSON before, so their depth is bounded.
func merge(base, over *node) *node {
	if base == nil || base.kind != mappingNode || over.kind != mappingNode {
		return over
	}
	out := &node{position: over.position, kind: mappingNode, pairs: append([]pair(nil), base.pairs...)}
	at := make(map[string]int, len(out.pairs))
	for i, p := range out.pairs {
		at[p.key.text] = i
	}
	for _, p := range over.pairs {
		if i, there := at[p.key.text]; there {
			out.pairs[i].value = merge(out.pairs[i].value, p.value)
			continue
		}
		out.pairs = append(out.pairs, p)
	}
	return out
}
