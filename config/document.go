package config

import (
	"errors"
	"slices"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// entry is one key, or the header of one table, of a TOML document.
type entry struct {
	path  []string // the key's parts, from the root
	line  int
	value any  // the key's value; inline tables are split into entries
	table bool // a table's header: no value
}

// parseDocument reads a TOML document into its entries, in the order of the
// file. The decoder gives the values and finds syntax errors and duplicates;
// the syntax tree gives the positions, which the decoder does not keep.
func parseDocument(source string, src []byte) ([]entry, *Problem) {
	root := map[string]any{}
	if err := toml.Unmarshal(src, &root); err != nil {
		problem := &Problem{Source: source, Message: err.Error()}
		if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
			problem.Line, _ = decode.Position()
		}
		return nil, problem
	}
	w := walker{root: root}
	w.parser.Reset(src)
	for w.parser.NextExpression() {
		w.expression(w.parser.Expression())
	}
	if err := w.parser.Error(); err != nil {
		return nil, &Problem{Source: source, Message: err.Error()}
	}
	return w.entries, nil
}

// walker turns a syntax tree into entries.
type walker struct {
	parser  unstable.Parser
	root    map[string]any
	table   []string // the table that key-values belong to
	inArray bool     // … which is an element of an array: its keys have no path
	entries []entry
}

func (w *walker) expression(node *unstable.Node) {
	switch node.Kind {
	case unstable.Table, unstable.ArrayTable:
		path, line := w.key(node)
		value, found := lookup(w.root, path)
		_, isTable := value.(map[string]any)
		w.table, w.inArray = path, !found || !isTable
		switch {
		case !w.inArray:
			w.entries = append(w.entries, entry{path: path, line: line, table: true})
		case found:
			w.entries = append(w.entries, entry{path: path, line: line, value: value})
		}
	case unstable.KeyValue:
		if !w.inArray {
			w.keyValue(w.table, node)
		}
	}
}

func (w *walker) keyValue(table []string, node *unstable.Node) {
	key, line := w.key(node)
	path := slices.Concat(table, key)
	value := node.Value()
	if value.Kind != unstable.InlineTable {
		held, _ := lookup(w.root, path)
		w.entries = append(w.entries, entry{path: path, line: line, value: held})
		return
	}
	w.entries = append(w.entries, entry{path: path, line: line, table: true})
	for children := value.Children(); children.Next(); {
		w.keyValue(path, children.Node())
	}
}

// key returns the parts of a node's key and the line it starts on.
func (w *walker) key(node *unstable.Node) (parts []string, line int) {
	for key := node.Key(); key.Next(); {
		part := key.Node()
		if line == 0 {
			line = w.parser.Shape(part.Raw).Start.Line
		}
		parts = append(parts, string(part.Data))
	}
	return parts, line
}

// lookup returns the value at a path of nested tables.
func lookup(root map[string]any, path []string) (any, bool) {
	var at any = root
	for _, part := range path {
		table, ok := at.(map[string]any)
		if !ok {
			return nil, false
		}
		if at, ok = table[part]; !ok {
			return nil, false
		}
	}
	return at, true
}
