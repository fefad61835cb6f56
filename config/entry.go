package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Entry is one key with the value in force.
type Entry struct {
	Key string
	// Value is a string, whole number or boolean; a duration is text. A secret that is
	// set reads "[redacted]".
	Value any
	// Origin is where the value comes from; "derived" if from other keys.
	Origin string
	Secret bool
}

// TOML returns the entry's value as written in a file.
func (e Entry) TOML() string {
	switch v := e.Value.(type) {
	case string:
		return strconv.Quote(v)
	case Bytes:
		return strconv.Quote(v.String())
	case float64: // JSON decodes whole numbers like this, too
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}

const derived = "derived"

// Entries returns every key with its value, sorted by table and, within a table, in the
// order of Config. It does not contain the values of secrets.
func (c *Config) Entries() []Entry {
	root := reflect.ValueOf(c).Elem()
	leaves := schemaOf(root.Type())
	var entries []Entry
	for _, leaf := range leaves.declared() {
		e := Entry{Key: leaf.key, Origin: derived, Secret: leaf.typ == reflect.TypeFor[Secret]()}
		if origin, ok := c.origins[leaf.key]; ok {
			e.Origin = origin.String()
		}
		switch v := root.FieldByIndex(leaf.index).Interface().(type) {
		case time.Duration:
			e.Value = duration(v)
		case Bytes:
			e.Value = v.String()
		case Secret:
			e.Value = v.String()
		default:
			e.Value = v
		}
		if text, ok := e.Value.(string); ok && leaf.limits.path && text != "" && strings.HasPrefix(e.Origin, "built-in ") {
			e.Origin = derived // the layers left it empty
		}
		entries = append(entries, e)
	}
	return entries
}

// declared returns the leaves in the order of their struct, the keys of a table
// before the tables in it.
func (s schema) declared() []leaf {
	return slices.SortedFunc(maps.Values(s), func(a, b leaf) int {
		common := min(len(a.index), len(b.index)) - 1
		if c := slices.Compare(a.index[:common], b.index[:common]); c != 0 {
			return c
		}
		if len(a.index) != len(b.index) && common > 0 {
			return len(a.index) - len(b.index)
		}
		return slices.Compare(a.index, b.index)
	})
}

// duration formats a duration as people write it: 5m, not 5m0s.
func duration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Difference is a key whose values differ.
type Difference struct {
	Key    string
	Values []string // as in TOML, in the order of the configurations
}

// Diff returns the keys in which configurations differ. For a secret, it says whether it
// is set, and with the word "differs" that it is a different one.
func Diff(configs ...*Config) []Difference {
	var all []Difference
	if len(configs) == 0 {
		return nil
	}
	for _, leaf := range schemaOf(reflect.TypeFor[Config]()).declared() {
		d := Difference{Key: leaf.key}
		same := true
		first := reflect.ValueOf(configs[0]).Elem().FieldByIndex(leaf.index).Interface()
		for _, c := range configs {
			value := reflect.ValueOf(c).Elem().FieldByIndex(leaf.index).Interface()
			same = same && value == first
			d.Values = append(d.Values, shown(value, first))
		}
		if !same {
			all = append(all, d)
		}
	}
	return all
}

func shown(value, first any) string {
	switch v := value.(type) {
	case Secret:
		if v.IsZero() || value == first {
			return strconv.Quote(v.String())
		}
		return strconv.Quote(redacted + " differs")
	case time.Duration:
		return strconv.Quote(duration(v))
	default:
		return Entry{Value: v}.TOML()
	}
}

// Environments returns the names of the environments that may be loaded with an
// operator's directory: those built in and the directory's own.
func Environments(opts Options) ([]string, error) {
	l := newLoader(opts)
	dir, err := l.directory(opts)
	if err != nil {
		return nil, err
	}
	names := builtinEnvironments()
	if dir != "" {
		names = append(names, folders(dir)...)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
