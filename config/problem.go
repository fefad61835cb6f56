package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one fault of a configuration.
type Problem struct {
	Source  string // the file, variable or command line with the fault; empty if none
	Line    int    // the line in the file, 0 if unknown
	Key     string // the dotted key; empty if the fault concerns none
	Message string // what is wrong and what to write instead
}

// String returns "file:line: key: message".
func (p Problem) String() string {
	parts := make([]string, 0, 3)
	for _, part := range []string{place(p.Source, p.Line), p.Key, p.Message} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// Place returns "file:line", as far as known.
func (p Problem) Place() string { return place(p.Source, p.Line) }

// Text returns "key: message".
func (p Problem) Text() string { return Problem{Key: p.Key, Message: p.Message}.String() }

// Error is every problem of a configuration, in the order of the files.
type Error struct{ Problems []Problem }

// Error lists the problems, one per line.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	if len(lines) == 1 {
		return "configuration: " + lines[0]
	}
	return fmt.Sprintf("configuration has %d problems:\n  %s", len(lines), strings.Join(lines, "\n  "))
}

// problems collects what is wrong.
type problems []Problem

func (ps *problems) add(o Origin, key, format string, args ...any) {
	*ps = append(*ps, Problem{Source: o.Source, Line: o.Line, Key: key, Message: fmt.Sprintf(format, args...)})
}

// err returns the problems as an error, nil if there are none.
func (ps problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	sorted := slices.Clone(ps)
	slices.SortStableFunc(sorted, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
	return &Error{Problems: slices.Compact(sorted)}
}

func place(source string, line int) string {
	if line == 0 {
		return source
	}
	return source + ":" + strconv.Itoa(line)
}
