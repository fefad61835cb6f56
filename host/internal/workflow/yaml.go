package workflow

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// position is a place in a source, from 1.
type position struct{ line, col int }

type nodeKind int

const (
	scalarNode nodeKind = iota
	mappingNode
	sequenceNode
)

// node is a YAML value as used in templates: aliases resolved (to the same node, so an
// alias costs nothing until it is written out), merge keys applied.
type node struct {
	position
	kind  nodeKind
	text  string // scalar: its characters
	plain bool   // scalar: not quoted, so it may be a number, a bool or null
	lost  bool   // the value could not be read, and that has been noted
	pairs []pair // mapping, in the order of the source
	items []*node
}

// pair is one entry of a mapping.
type pair struct {
	key    *node // a scalar
	value  *node
	merged bool // it came from a merge key: an explicit one takes precedence
}

// get returns the value of a key, nil if there is none.
func (n *node) get(key string) *node {
	for i := range n.pairs {
		if n.pairs[i].key.text == key {
			return n.pairs[i].value
		}
	}
	return nil
}

// parseYAML reads a source of one YAML document. Problems are added to ps; the node is
// nil if nothing could be read.
func parseYAML(src []byte, ps *problems) *node {
	if !utf8.Valid(src) {
		ps.add(firstInvalid(src), "", "the template is not UTF-8: save it as UTF-8")
		return nil
	}
	if i := strings.IndexByte(string(src), 0); i >= 0 {
		ps.add(placeOf(src, i), "", "the template contains a NUL character: remove it")
		return nil
	}
	file, err := parseAST(string(src))
	if err != nil {
		addSyntax(ps, err)
		return nil
	}
	var docs []*ast.DocumentNode
	for _, d := range file.Docs {
		if d.Body != nil {
			docs = append(docs, d)
		}
	}
	switch {
	case len(docs) == 0:
		ps.add(position{1, 1}, "", "the template is empty: it needs a namespace, name, version and steps")
		return nil
	case len(docs) > 1:
		ps.add(placeAt(docs[1].Body.GetToken()), "", "more than one document: put each template in its own file")
	}
	c := converter{problems: ps, anchors: map[string]*node{}}
	return c.node(docs[0].Body)
}

// parseAST runs the YAML parser. It checks the shape first, since the parser recurses,
// and turns a panic into an error: the parser reads untrusted bytes, and a template must
// not bring down the host.
func parseAST(src string) (file *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			file, err = nil, fmt.Errorf("the YAML parser failed (%v)", r)
		}
	}()
	tokens := lexer.Tokenize(src)
	if err := checkShape(tokens); err != nil {
		return nil, err
	}
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

func addSyntax(ps *problems, err error) {
	if syntax, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		ps.add(placeAt(syntax.Token), "", "not valid YAML: %s", syntax.Message)
		return
	}
	message, _, _ := strings.Cut(err.Error(), "\n")
	ps.add(position{1, 1}, "", "not valid YAML: %s", message)
}

func placeAt(tk *token.Token) position {
	if tk == nil || tk.Position == nil {
		return position{1, 1}
	}
	return position{max(tk.Position.Line, 1), max(tk.Position.Column, 1)}
}

func placeOf(src []byte, offset int) position {
	before := string(src[:offset])
	return position{1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])}
}

func firstInvalid(src []byte) position {
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && n == 1 {
			return placeOf(src, i)
		}
		i += n
	}
	return position{1, 1}
}
