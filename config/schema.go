package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/internal/spelling"
)

// schema is the set of keys that a struct declares by its tags: toml names a key, min
// and max bound a number or duration, oneof lists the values of a string, match names
// its form, path marks a path (relative to the file that sets it), and reload marks a
// key that a running host takes over.
type schema map[string]leaf

// leaf is one key.
type leaf struct {
	key    string
	typ    reflect.Type
	index  []int // of the field in the struct
	limits limits
}

type limits struct {
	min, max string
	oneof    []string
	match    string
	path     bool
	reload   bool
}

// form returns the pattern that a match tag names, and its description.
func form(name string) (pattern *regexp.Regexp, want string) {
	switch name {
	case "queue":
		return regexp.MustCompile(`^[a-z][a-z0-9_]{0,46}$`), "at most 47 lower-case letters, digits and _, starting with a letter"
	case "http":
		return regexp.MustCompile(`^(https?://[^@\s]+)?$`), "a URL that begins with http:// or https://, without user and password"
	case "algorithm":
		return regexp.MustCompile(algorithmForm + `$`), "a name, optionally with options: NAME={JSON object}"
	case "shadow":
		return regexp.MustCompile(`^$|` + algorithmForm + `$`), "nothing, or a name, optionally with options: NAME={JSON object}"
	case "headers":
		return regexp.MustCompile(`^([A-Za-z0-9-]+=[^,\s][^,]*(,[A-Za-z0-9-]+=[^,\s][^,]*)*)?$`), "name=value pairs, separated by commas"
	case "sha256":
		return regexp.MustCompile(`^([0-9a-f]{64})?$`), "64 lower-case hexadecimal digits"
	case "user":
		return regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?)?$`), "USER or USER:GROUP"
	default:
		return nil, ""
	}
}

// algorithmForm is a scaling algorithm's name with or without options.
const algorithmForm = `^[A-Za-z][A-Za-z0-9._-]{0,99}(=\{(?s:.*)\})?`

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
	l := limits{min: tag.Get("min"), max: tag.Get("max"), match: tag.Get("match"), path: tag.Get("path") != "", reload: tag.Get("reload") != ""}
	if list := tag.Get("oneof"); list != "" {
		l.oneof = strings.Split(list, ",")
	}
	return l
}

// keys returns all keys, sorted.
func (s schema) keys() []string { return slices.Sorted(maps.Keys(s)) }

// isTable reports whether there are keys below the dotted name.
func (s schema) isTable(name string) bool {
	for key := range s {
		if strings.HasPrefix(key, name+".") {
			return true
		}
	}
	return false
}

// unknown returns the message for a key that is not in the schema.
func (s schema) unknown(key string) string {
	if near := spelling.Nearest(key, s.keys()); near != "" {
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
	case reflect.TypeFor[float64]():
		switch n := value.(type) {
		case float64:
			return n, nil
		case int64:
			return float64(n), nil
		}
		return nil, fmt.Errorf("want a number, got %s", describe(value))
	case reflect.TypeFor[bool]():
		if b, ok := value.(bool); ok {
			return b, nil
		}
		return nil, fmt.Errorf("want true or false, got %s", describe(value))
	case reflect.TypeFor[[]int]():
		return listOf(value, "whole numbers", func(n int64) int { return int(n) })
	case reflect.TypeFor[[]string]():
		return listOf(value, "strings", func(s string) string { return s })
	case reflect.TypeFor[Bytes]():
		text, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf(`want a size with its unit, such as "256MiB", got %s`, describe(value))
		}
		return l.fromText(text)
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
	case reflect.TypeFor[float64]():
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("want a number, got %.40q", text)
		}
		return n, nil
	case reflect.TypeFor[bool]():
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("want true or false, got %.40q", text)
		}
		return text == "true", nil
	case reflect.TypeFor[Bytes]():
		return ParseBytes(text)
	default:
		return text, nil
	}
}

// listOf converts an array whose elements are all of one type.
func listOf[E, T any](value any, what string, convert func(E) T) ([]T, error) {
	items, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("want an array of %s, got %s", what, describe(value))
	}
	list := make([]T, len(items))
	for i, item := range items {
		e, ok := item.(E)
		if !ok {
			return nil, fmt.Errorf("want an array of %s, got %s in it", what, describe(item))
		}
		list[i] = convert(e)
	}
	return list, nil
}

// check reports why a value of the leaf's type is outside its limits.
func (l leaf) check(value any) error {
	switch v := value.(type) {
	case int:
		low, _ := strconv.Atoi(l.limits.min)
		high, _ := strconv.Atoi(l.limits.max)
		if v < low || v > high {
			return fmt.Errorf("%d is out of range: want %d to %d", v, low, high)
		}
	case float64:
		low, _ := strconv.ParseFloat(l.limits.min, 64)
		high, _ := strconv.ParseFloat(l.limits.max, 64)
		if !(v >= low && v <= high) { // false for NaN
			return fmt.Errorf("%v is out of range: want %s to %s", v, l.limits.min, l.limits.max)
		}
	case time.Duration:
		low, _ := time.ParseDuration(l.limits.min)
		high, _ := time.ParseDuration(l.limits.max)
		if v < low || v > high {
			return fmt.Errorf("%s is out of range: want %s to %s", v, l.limits.min, l.limits.max)
		}
	case Bytes:
		low, _ := ParseBytes(l.limits.min)
		high, _ := ParseBytes(l.limits.max)
		if v < low || v > high {
			return fmt.Errorf("%s is out of range: want %s to %s", v, l.limits.min, l.limits.max)
		}
	case string:
		if l.typ == reflect.TypeFor[Secret]() {
			return l.checkSecret(NewSecret(v))
		}
		return l.checkString(v)
	case Secret:
		return l.checkSecret(v)
	}
	return nil
}

func (l leaf) checkString(v string) error {
	if len(l.limits.oneof) > 0 && !slices.Contains(l.limits.oneof, v) {
		return fmt.Errorf("%.40q is not one of %s", v, strings.Join(l.limits.oneof, ", "))
	}
	if pattern, want := form(l.limits.match); pattern != nil && !pattern.MatchString(v) {
		if strings.Contains(v, "@") { // it may follow a password
			return fmt.Errorf("is not valid: want %s", want)
		}
		return fmt.Errorf("%.70q is not valid: want %s", v, want)
	}
	if strings.ContainsRune(v, 0) {
		return fmt.Errorf("must not contain NUL characters")
	}
	return nil
}

// checkSecret is checkString without the value in messages.
func (l leaf) checkSecret(v Secret) error {
	if pattern, want := form(l.limits.match); pattern != nil && !pattern.MatchString(v.Reveal()) {
		return fmt.Errorf("is not valid: want %s", want)
	}
	if strings.ContainsRune(v.Reveal(), 0) {
		return errors.New("must not contain NUL characters")
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
