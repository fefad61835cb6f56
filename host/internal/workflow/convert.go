package workflow

import (
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// maxMerged bounds the entries that merge keys copy.
const maxMerged = 200_000

// converter turns the parser's tree into nodes. It recurses as deep as the document is
// nested, which checkShape has bounded.
type converter struct {
	problems *problems
	anchors  map[string]*node
	merged   int
}

// node converts a value. If it finds a problem it returns a lost scalar, so that the rest
// can still be read.
func (c *converter) node(n ast.Node) *node {
	switch n := n.(type) {
	case *ast.MappingNode:
		return c.mapping(n)
	case *ast.MappingValueNode:
		return c.mapping(&ast.MappingNode{Start: n.Start, Values: []*ast.MappingValueNode{n}})
	case *ast.SequenceNode:
		out := &node{position: placeAt(n.GetToken()), kind: sequenceNode, items: make([]*node, 0, len(n.Values))}
		for _, v := range n.Values {
			out.items = append(out.items, c.node(v))
		}
		return out
	case *ast.AnchorNode:
		out := c.node(n.Value)
		c.anchors[nameOf(n.Name)] = out // only now: an anchor cannot contain itself
		return out
	case *ast.AliasNode:
		return c.alias(n)
	case *ast.TagNode:
		c.problems.add(placeAt(n.GetToken()), "", "YAML tags such as %s are not supported: remove it; to get a string, use quotes", n.Start.Value)
		return c.node(n.Value)
	case *ast.LiteralNode:
		return c.scalar(n.GetToken(), n.Value.Value, false)
	case *ast.NullNode:
		return c.scalar(n.GetToken(), "", true)
	case *ast.StringNode:
		quoted := n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
		return c.scalar(n.Token, n.Value, !quoted)
	case ast.ScalarNode:
		return c.scalar(n.GetToken(), n.GetToken().Value, true)
	case nil:
		return &node{position: position{1, 1}, plain: true}
	}
	c.problems.add(placeAt(n.GetToken()), "", "a %s is not allowed here", strings.ToLower(n.Type().YAMLName()))
	return &node{position: placeAt(n.GetToken()), plain: true, lost: true}
}

func (c *converter) scalar(tk *token.Token, text string, plain bool) *node {
	at := placeAt(tk)
	if strings.IndexByte(text, 0) >= 0 || !utf8.ValidString(text) {
		c.problems.add(at, "", "the text contains a NUL character or invalid UTF-8, which cannot be stored: remove it")
		text = strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "\uFFFD")
	}
	return &node{position: at, text: text, plain: plain}
}

func (c *converter) alias(n *ast.AliasNode) *node {
	name := nameOf(n.Value)
	if target, ok := c.anchors[name]; ok {
		return target
	}
	c.problems.add(placeAt(n.GetToken()), "", "no anchor &%s is defined before *%s (an anchor cannot contain itself)", name, name)
	return &node{position: placeAt(n.GetToken()), plain: true, lost: true}
}

func (c *converter) mapping(n *ast.MappingNode) *node {
	out := &node{kind: mappingNode, position: placeAt(n.GetToken()), pairs: make([]pair, 0, len(n.Values))}
	if !n.IsFlowStyle && len(n.Values) > 0 {
		out.position = placeAt(n.Values[0].Key.GetToken())
	}
	at := make(map[string]int, len(n.Values))
	for _, v := range n.Values {
		if v.Key.IsMergeKey() {
			c.merge(out, at, v.Value)
			continue
		}
		key := c.key(v.Key)
		value := c.node(v.Value)
		if key == nil {
			continue
		}
		i, there := at[key.text]
		switch {
		case !there:
			at[key.text] = len(out.pairs)
			out.pairs = append(out.pairs, pair{key: key, value: value})
		case out.pairs[i].merged:
			out.pairs[i] = pair{key: key, value: value}
		default:
			c.problems.add(key.position, "", "duplicate key %q, first in line %d: remove one", key.text, out.pairs[i].key.line)
		}
	}
	return out
}

// key converts a key; it returns nil for one that a template must not have.
func (c *converter) key(k ast.MapKeyNode) *node {
	at := placeAt(k.GetToken())
	if explicit, ok := k.(*ast.MappingKeyNode); ok {
		c.problems.add(placeAt(explicit.Start), "", "keys with ? are not supported: write key: value")
		return nil
	}
	switch key := c.node(k); {
	case key.kind != scalarNode:
		c.problems.add(at, "", "a key must be a string")
		return nil
	case key.plain && resolve(key.text).kind != stringScalar:
		c.problems.add(at, "", "a key must be a string: put %q in quotes", key.text)
		return nil
	default:
		return key
	}
}

// merge applies a merge key (<<): the entries of one mapping or of several, of which the
// earlier take precedence; explicit keys take precedence over all.
func (c *converter) merge(out *node, at map[string]int, value ast.Node) {
	source := c.node(value)
	sources := []*node{source}
	if source.kind == sequenceNode {
		sources = source.items
	}
	for _, s := range sources {
		if s.kind != mappingNode {
			c.problems.add(placeAt(value.GetToken()), "", "a merge key (<<) takes a mapping or a list of mappings")
			return
		}
		if c.merged += len(s.pairs); c.merged > maxMerged {
			if c.merged-len(s.pairs) <= maxMerged {
				c.problems.add(placeAt(value.GetToken()), "", "merge keys copy more than %d entries: merge less", maxMerged)
			}
			return
		}
		for _, p := range s.pairs {
			if _, there := at[p.key.text]; !there {
				at[p.key.text] = len(out.pairs)
				out.pairs = append(out.pairs, pair{p.key, p.value, true})
			}
		}
	}
}

func nameOf(n ast.Node) string {
	if n == nil {
		return ""
	}
	return n.GetToken().Value
}
