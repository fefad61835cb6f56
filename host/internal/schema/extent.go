package schema

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Limits on the depth and the size of a schema, where everything it refers to counts as
// often as it is referred to: the host works through all of it, and nothing can interrupt
// that.
const (
	maxDepth = 64
	maxSays  = 50_000
)

// extent measures the size of a schema.
type extent struct {
	root any
	of   map[string]int // by reference; 1 while it is being measured
}

func (e *extent) measure(schema any, depth int) (n int, err error) {
	if depth > maxDepth {
		return 0, fmt.Errorf("it is nested more than %d deep", maxDepth)
	}
	n = 1
	add := func(more int, err error) error {
		if n += more; err == nil && n > maxSays {
			err = fmt.Errorf("it has more than %d values, counting those that it refers to", maxSays)
		}
		return err
	}
	switch s := schema.(type) {
	case []any:
		for _, inner := range s {
			if err := add(e.measure(inner, depth+1)); err != nil {
				return 0, err
			}
		}
	case map[string]any:
		for key, inner := range s {
			to, refers := inner.(string)
			if refers = refers && (key == "$ref" || key == "$dynamicRef" || key == "$recursiveRef"); refers {
				err = add(e.follow(key, to, depth+1))
			} else {
				err = add(e.measure(inner, depth+1))
			}
			if err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// follow measures what a reference stands for. A recursive reference is allowed: it
// applies to values further inside the options, which are finite.
func (e *extent) follow(key, to string, depth int) (int, error) {
	pointer, inside := strings.CutPrefix(to, "#")
	switch {
	case !inside:
		return 0, fmt.Errorf("it refers to %.80q, and schemas are not loaded from elsewhere: define it under $defs", to)
	case key != "$ref" || pointer != "" && pointer[0] != '/':
		return 0, fmt.Errorf("it has the %s %.80q: refer to its parts by JSON pointers, as in {\"$ref\": \"#/$defs/name\"}", key, to)
	}
	if n, known := e.of[pointer]; known {
		return n, nil
	}
	e.of[pointer] = 1
	n, err := e.measure(e.at(pointer), depth)
	e.of[pointer] = n
	return n, err
}

// at returns what a pointer points to; nil if there is nothing, which the compiler
// reports too.
func (e *extent) at(pointer string) any {
	at := e.root
	if plain, err := url.PathUnescape(pointer); err == nil {
		pointer = plain
	}
	for _, part := range strings.Split(pointer, "/")[1:] {
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		switch in := at.(type) {
		case map[string]any:
			at = in[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(in) {
				return nil
			}
			at = in[i]
		default:
			return nil
		}
	}
	return at
}
