package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// options are the options that a plugin accepts in plugins.toml.
type options struct {
	root   *schema
	schema string // of root, as text
	apply  func(context.Context, []byte) error
}

// WithOptions declares the plugin's options: the table `options` of its entry in plugins.toml.
// T is a struct. Its JSON keys are the names of the options, a tag doc:"…" explains an option,
// and defaults holds the default values. The JSON Schema shown to operators is generated from
// it. Unknown keys and wrong types are refused, all at once, before apply is called.
//
// The apply function puts the options into use. It runs once, before any step. If it returns an
// error, the plugin does not serve. Use [OptionError] to name the option at fault, and
// [errors.Join] to report several.
func WithOptions[T any](defaults T, apply func(ctx context.Context, options T) error) Option {
	return func(s *settings) {
		if s.options != nil {
			s.problems = append(s.problems, errors.New("options are declared twice"))
			return
		}
		o, err := newOptions(defaults)
		if err != nil {
			s.problems = append(s.problems, fmt.Errorf("options %T: %w", defaults, err))
			return
		}
		o.apply = func(ctx context.Context, raw []byte) error {
			value := defaults
			d := json.NewDecoder(bytes.NewReader(raw))
			d.UseNumber()
			d.DisallowUnknownFields()
			if err := d.Decode(&value); err != nil {
				return decodeError(err)
			}
			return guard(func() error { return apply(ctx, value) })
		}
		s.options = o
	}
}

// OptionError says which option is wrong.
type OptionError struct {
	// Path is a JSON pointer into the options, such as /currency.
	Path string
	// Message says what is wrong and what would be right.
	Message string
}

var _ error = (*OptionError)(nil)

// Error returns the path and the message.
func (e *OptionError) Error() string { return e.Path + ": " + e.Message }

// Duration is an option written like "1m30s".
type Duration time.Duration

// MarshalText formats the duration as [time.Duration.String] does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText accepts what [time.ParseDuration] accepts.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

func newOptions(defaults any) (*options, error) {
	t := reflect.TypeOf(defaults)
	if t == nil || t.Kind() != reflect.Struct {
		return nil, errors.New("want a struct")
	}
	root, err := schemaOf(t, 0)
	if err != nil {
		return nil, err
	}
	values, err := json.Marshal(defaults)
	if err != nil {
		return nil, fmt.Errorf("marshal defaults: %w", err)
	}
	root.setDefaults(values)
	root.Draft = "https://json-schema.org/draft/2020-12/schema"
	text, err := json.Marshal(root)
	if err != nil {
		return nil, fmt.Errorf("marshal schema: %w", err)
	}
	return &options{root: root, schema: string(text)}, nil
}

// accept checks the options and puts them into use. The answer is empty if they were accepted.
// A nil receiver accepts none.
func (o *options) accept(ctx context.Context, raw []byte) []*pluginv1.FieldError {
	if len(bytes.TrimSpace(raw)) == 0 {
		raw = []byte("{}")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return []*pluginv1.FieldError{{Message: clean(fmt.Sprintf("the options are not JSON: %v", err), maxMessageBytes)}}
	}
	root := &schema{Type: "object", Additional: false}
	if o != nil {
		root = o.root
	}
	var problems []*pluginv1.FieldError
	root.check("", value, &problems)
	if len(problems) > 0 || o == nil {
		return problems
	}
	return fieldErrors(o.apply(ctx, raw))
}

// check reports every place where a value does not fit.
func (s *schema) check(path string, value any, problems *[]*pluginv1.FieldError) {
	report := func(path, format string, args ...any) {
		*problems = append(*problems, &pluginv1.FieldError{
			Path:    clean(path, maxMessageBytes),
			Message: clean(fmt.Sprintf(format, args...), maxMessageBytes),
		})
	}
	if s.Type == "" || value == nil {
		return
	}
	if got := jsonTypeOf(value); got != s.Type && (s.Type != "number" || got != "integer") {
		report(path, "want %s, got %s", s.Type, got)
		return
	}
	switch v := value.(type) {
	case []any:
		for i, item := range v {
			s.Items.check(fmt.Sprintf("%s/%d", path, i), item, problems)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			at := path + "/" + pointerEscape.Replace(key)
			if property, ok := s.Properties[key]; ok {
				property.check(at, v[key], problems)
			} else if values, ok := s.Additional.(*schema); ok {
				values.check(at, v[key], problems)
			} else {
				report(at, "unknown option; known options: %s", known(s.Properties))
			}
		}
	}
}

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

func known(properties map[string]*schema) string {
	if len(properties) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(properties)), ", ")
}

func jsonTypeOf(value any) string {
	switch v := value.(type) {
	case bool:
		return "boolean"
	case string:
		return "string"
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return "number"
		}
		return "integer"
	case []any:
		return "array"
	default:
		return "object"
	}
}

// decodeError names the option that could not be decoded, if it is known.
func decodeError(err error) error {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		path := "/" + strings.ReplaceAll(t.Field, ".", "/")
		return &OptionError{Path: path, Message: fmt.Sprintf("%s does not fit into %s", t.Value, t.Type)}
	}
	return err
}

// fieldErrors splits joined errors.
func fieldErrors(err error) []*pluginv1.FieldError {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // only the outermost one is split
		var all []*pluginv1.FieldError
		for _, e := range joined.Unwrap() {
			all = append(all, fieldErrors(e)...)
		}
		return all
	}
	f := &pluginv1.FieldError{Message: clean(err.Error(), maxMessageBytes)}
	if o, ok := errors.AsType[*OptionError](err); ok && o != nil {
		f.Path, f.Message = clean(o.Path, maxMessageBytes), clean(o.Message, maxMessageBytes)
	}
	return []*pluginv1.FieldError{f}
}
