package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// schema is the set of keys that a struct declares by its tags: toml names a
// key, min and max bound a number or duration, oneof lists the values of a
// string, match names its form, and path marks a path, which in a file starts
// from the file's folder.
type schema map[string]leaf

// leaf is one key.
type leaf struct {
	key    string
	typ    reflect.Type
	index  []int // the field, from the struct
	limits limits
}

type limits struct {
	min, max string
	oneof    []string
	match    string
	path     bool
}

// form returns the pattern that a match tag names and what it wants, in words.
func form(name string) (pattern *regexp.Regexp, want string) {
	switch name {
	case "queue":
		return regexp.MustCompile(`^[a-z][a-z0-9_]{0,46}$`), "lower-case letters, digits and _, at most 47"
	case "sha256":
		return regexp.MustCompile(`^([0-9a-f]{64})?$`), "64 lower-case hexadecimal digits"
	default:
		return nil, ""
	}
}

func schemaOf(t reflect.Type) schema {
	s := schema{}
	s.collect(t, "", nil)
	return s
}

func (s schema) collect(t reflect.Type, prefix string, index []int) {
	for i := range t.NumField() {
		field := t.Field(i)
		name := field.Tag.Get("toml")
		if name == "" || name == "-" {
			continue
		}
		key := prefix + name
		at := append(slices.Clone(index), i)
		if field.Type.Kind() == reflect.Struct && field.Type != reflect.TypeFor[Secret]() {
			s.collect(field.Type, key+".", at)
			continue
		}
		s[key] = leaf{key: key, typ: field.Type, index: at, limits: limitsOf(field.Tag)}
	}
}

func limitsOf(tag reflect.StructTag) limits {
	l := limits{min: tag.Get("min"), max: tag.Get("max"), match: tag.Get("match"), path: tag.Get("path") != ""}
	if list := tag.Get("oneof"); list != "" {
		l.oneof = strings.Split(list, ",")
	}
	return l
}

// keys returns all keys, sorted.
func (s schema) keys() []string { return slices.Sorted(maps.Keys(s)) }

// isTable reports whether keys lie below the dotted name.
func (s schema) isTable(name string) bool {
	for key := range s {
		if strings.HasPrefix(key, name+".") {
			return true
		}
	}
	return false
}

// unknown says what is wrong with a key that the schema lacks.
func (s schema) unknown(key string) string {
	if near := nearest(key, s.keys()); near != "" {
		return "unknown key, did you mean " + near + "?"
	}
	table := key
	for strings.Contains(table, ".") {
		table = table[:strings.LastIndexByte(table, '.')]
		if s.isTable(table) {
			return "unknown key; " + table + " has " + strings.Join(s.below(table), ", ")
		}
	}
	return "unknown key; the tables are " + strings.Join(s.tables(), ", ")
}

// below returns the keys of a table without the table's name.
func (s schema) below(table string) []string {
	var names []string
	for _, key := range s.keys() {
		if name, ok := strings.CutPrefix(key, table+"."); ok {
			names = append(names, name)
		}
	}
	return names
}

// tables returns the names of the top-level tables.
func (s schema) tables() []string {
	var names []string
	for _, key := range s.keys() {
		name, _, _ := strings.Cut(key, ".")
		names = append(names, name)
	}
	return slices.Compact(names)
}

// fromTOML converts a decoded TOML value to the leaf's type.
func (l leaf) fromTOML(value any) (any, error) {
	switch l.typ {
	case reflect.TypeFor[time.Duration]():
		text, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf(`want a duration with its unit, such as "30s", got %s`, describe(value))
		}
		return l.fromText(text)
	case reflect.TypeFor[int]():
		if n, ok := value.(int64); ok {
			return int(n), nil
		}
		return nil, fmt.Errorf("want a whole number, got %s", describe(value))
	case reflect.TypeFor[bool]():
		if b, ok := value.(bool); ok {
			return b, nil
		}
		return nil, fmt.Errorf("want true or false, got %s", describe(value))
	default: // string and Secret
		if text, ok := value.(string); ok {
			return text, nil
		}
		return nil, fmt.Errorf("want a string, got %s", describe(value))
	}
}

// fromText converts the text of a variable or an override to the leaf's type.
func (l leaf) fromText(text string) (any, error) {
	switch l.typ {
	case reflect.TypeFor[time.Duration]():
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("want a duration with its unit, such as 30s, got %.40q", text)
		}
		return d, nil
	case reflect.TypeFor[int]():
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("want a whole number, got %.40q", text)
		}
		return n, nil
	case reflect.TypeFor[bool]():
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("want true or false, got %.40q", text)
		}
		return text == "true", nil
	default:
		return text, nil
	}
}

// check reports what keeps a value of the leaf's type out of its limits.
func (l leaf) check(value any) error {
	switch v := value.(type) {
	case int:
		low, _ := strconv.Atoi(l.limits.min)
		high, _ := strconv.Atoi(l.limits.max)
		if v < low || v > high {
			return fmt.Errorf("%d is out of range: want %d to %d", v, low, high)
		}
	case time.Duration:
		low, _ := time.ParseDuration(l.limits.min)
		high, _ := time.ParseDuration(l.limits.max)
		if v < low || v > high {
			return fmt.Errorf("%s is out of range: want %s to %s", v, l.limits.min, l.limits.max)
		}
	case string:
		return l.checkString(v)
	}
	return nil
}

func (l leaf) checkString(v string) error {
	if len(l.limits.oneof) > 0 && !slices.Contains(l.limits.oneof, v) {
		return fmt.Errorf("%.40q is not one of %s", v, strings.Join(l.limits.oneof, ", "))
	}
	if pattern, want := form(l.limits.match); pattern != nil && !pattern.MatchString(v) {
		return fmt.Errorf("%.70q does not fit: want %s", v, want)
	}
	if strings.ContainsRune(v, 0) {
		return fmt.Errorf("must not contain NUL characters")
	}
	return nil
}

// describe names the kind of a TOML value without showing it.
func describe(value any) string {
	switch value.(type) {
	case nil:
		return "nothing"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case []any:
		return "an array"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}
