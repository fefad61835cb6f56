package workflow

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tasker-systems/tasker-host/internal/spelling"
)

// Problem is one fault of a template.
type Problem struct {
	Line, Col int    // in the source, from 1; 0 if the fault has no position
	Path      string // what it concerns, such as steps[2].retry.base; empty for the whole template
	Message   string // what is wrong and what to write instead
}

// TemplateError holds everything that is wrong with a template, in the order of the
// source.
type TemplateError struct {
	File     string
	Problems []Problem
}

// Error lists the problems, one per line: file:line:col: path: message.
func (e *TemplateError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.in(e.File)
	}
	return strings.Join(lines, "\n")
}

func (p Problem) in(file string) string {
	place := file
	if p.Line > 0 {
		place = fmt.Sprintf("%s:%d:%d", file, p.Line, p.Col)
	}
	if p.Path == "" {
		return place + ": " + p.Message
	}
	return place + ": " + p.Path + ": " + p.Message
}

// maxProblems bounds how many problems of a template are reported.
const maxProblems = 200

// problems collects what is wrong with a template.
type problems struct {
	list []Problem
	more bool
}

func (ps *problems) add(at position, path, format string, args ...any) {
	if len(ps.list) >= maxProblems {
		ps.more = true
		return
	}
	ps.list = append(ps.list, Problem{at.line, at.col, path, fmt.Sprintf(format, args...)})
}

// err returns the problems as an error, nil if there are none.
func (ps *problems) err(file string) error {
	if len(ps.list) == 0 {
		return nil
	}
	slices.SortStableFunc(ps.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.Path, b.Path))
	})
	list := slices.Compact(ps.list)
	if ps.more {
		list = append(list, Problem{Message: fmt.Sprintf("more than %d problems: the others are not listed", maxProblems)})
	}
	return &TemplateError{File: file, Problems: list}
}

// suggest returns `: did you mean "x"?` for the candidate most similar to word, or
// nothing if none is similar.
func suggest(word string, candidates []string) string {
	best := spelling.Nearest(word, candidates)
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}
