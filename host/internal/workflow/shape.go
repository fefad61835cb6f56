package workflow

import (
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/token"
)

// Limits on the input of the YAML parser, which recurses as deep as a document is nested,
// and whose effort grows with the square of the number of certain shapes.
const (
	maxNesting = 100  // open brackets, or markers before one value
	maxColumn  = 1000 // where a line may begin, which limits how deep blocks nest
	maxKeys    = 5000 // of a mapping in block style
	maxEmpty   = 1000 // entries without a value
)

// checkShape bounds how deep and how long the parser can be made to work.
func checkShape(tokens token.Tokens) error {
	var s shape
	var last *token.Token
	for _, tk := range tokens {
		if tk.Type == token.CommentType {
			continue
		}
		if fault := s.next(last, tk); fault != "" {
			return &yaml.SyntaxError{Token: tk, Message: fault}
		}
		last = tk
	}
	return nil
}

// shape tracks the structure of a source token by token.
type shape struct {
	first   *token.Token // of the line
	markers int          // before the next value
	empty   int
	flow    []flowLevel
	blocks  blockKeys
}

// flowLevel is an open bracket.
type flowLevel struct {
	mapping bool
	colon   bool // the entry has a colon
}

// next processes a token, given the one before it. It returns what is wrong, or "".
func (s *shape) next(last, tk *token.Token) string {
	if s.missing(last, tk) {
		if s.empty++; s.empty > maxEmpty {
			return fmt.Sprintf("more than %d entries have no value: remove some", maxEmpty)
		}
	}
	if s.first == nil || tk.Position.Line != s.first.Position.Line {
		s.first, s.markers = tk, 0
		switch {
		case len(s.flow) > 0:
		case tk.Position.Column > maxColumn:
			return fmt.Sprintf("a line starts beyond column %d: indent less", maxColumn)
		case s.blocks.line(tk) > maxKeys:
			return fmt.Sprintf("a mapping in block style has more than %d keys: use {…}", maxKeys)
		}
	}
	s.bracket(tk)
	switch tk.Type {
	case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType, token.AliasType:
		s.markers++
	case token.CollectEntryType, token.MappingValueType:
		s.markers = 0
	}
	if len(s.flow) > maxNesting || s.markers > maxNesting {
		return fmt.Sprintf("nested deeper than %d levels: flatten it", maxNesting)
	}
	return ""
}

// bracket tracks the brackets.
func (s *shape) bracket(tk *token.Token) {
	switch tk.Type {
	case token.MappingStartType, token.SequenceStartType:
		s.flow = append(s.flow, flowLevel{mapping: tk.Type == token.MappingStartType})
	case token.MappingEndType, token.SequenceEndType:
		s.flow = s.flow[:max(len(s.flow)-1, 0)]
	case token.MappingValueType, token.CollectEntryType:
		if n := len(s.flow); n > 0 {
			s.flow[n-1].colon = tk.Type == token.MappingValueType
		}
	}
}

// missing reports whether an entry ends before the token without a value.
func (s *shape) missing(last, tk *token.Token) bool {
	if last == nil {
		return false
	}
	if n := len(s.flow); n > 0 {
		ends := tk.Type == token.CollectEntryType || tk.Type == token.MappingEndType || tk.Type == token.SequenceEndType
		return ends && (last.Type == token.MappingValueType || s.flow[n-1].mapping && !s.flow[n-1].colon)
	}
	if last.Type != token.SequenceEntryType && last.Type != token.MappingValueType || tk.Position.Line == last.Position.Line {
		return false
	}
	// A list may begin in the column of its key.
	list := tk.Type == token.SequenceEntryType && s.first.Type != token.SequenceEntryType
	column := s.first.Position.Column
	return tk.Position.Column < column || tk.Position.Column == column && !list
}

// blockKeys counts the keys of the open block mappings, by column: the lines that begin
// there, with no line further left in between.
type blockKeys []struct{ column, keys int }

// line counts a line by its first token and returns the number of keys of the mapping
// that it belongs to.
func (b *blockKeys) line(tk *token.Token) int {
	column, open := tk.Position.Column, *b
	for len(open) > 0 && open[len(open)-1].column > column {
		open = open[:len(open)-1]
	}
	*b = open
	if tk.Type == token.SequenceEntryType {
		return 0
	}
	if len(open) == 0 || open[len(open)-1].column < column {
		*b = append(open, struct{ column, keys int }{column, 0})
	}
	last := &(*b)[len(*b)-1]
	last.keys++
	return last.keys
}
