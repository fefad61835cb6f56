// Package schema compiles JSON schemas that come from outside, those of templates' inputs
// and of plugins' options, within limits, and reports what does not match them.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
)

// Schema is a compiled schema. It is safe for concurrent use.
type Schema struct{ compiled *jsonschema.Schema }

// Fault is one place where a value does not match, or where a schema is invalid.
type Fault struct {
	Pointer string // JSON pointer into the value or the schema; "" is the whole
	Message string
}

// InvalidError says where a schema is invalid.
type InvalidError struct{ Faults []Fault }

var _ error = (*InvalidError)(nil)

// Error lists the faults in one line.
func (e *InvalidError) Error() string {
	texts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		texts[i] = "at " + f.Pointer + ": " + f.Message
	}
	return strings.Join(texts, "; ")
}

// place is the name of a schema for the compiler. It does not exist.
const place = "schema:///"

// Compile compiles a schema of draft 2020-12, or of the draft that it names. Formats
// (email, date-time, …) are enforced. A schema may refer only to its own parts, by JSON
// pointers; nothing is loaded. The error is one line; an [*InvalidError] says where.
func Compile(raw []byte) (*Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := (&extent{root: doc, of: map[string]int{}}).measure(doc, 0); err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(noLoader{})
	if err := c.AddResource(place, doc); err != nil {
		return nil, told(err)
	}
	compiled, err := c.Compile(place)
	if err != nil {
		return nil, told(err)
	}
	s := &Schema{compiled}
	return s, s.checkLoops()
}

// told makes the compiler's error readable.
func told(err error) error {
	if of, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		if invalid, ok := errors.AsType[*jsonschema.ValidationError](of.Err); ok {
			return &InvalidError{faults(invalid)}
		}
	}
	return errors.New(strings.ReplaceAll(strings.ReplaceAll(err.Error(), place, ""), "\n", " "))
}

// checkLoops finds a reference that leads back to itself: such a schema compiles, but
// then rejects every value.
func (s *Schema) checkLoops() error {
	err := s.compiled.Validate(map[string]any{})
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return err
	}
	for leaf := range leaves(invalid) {
		if loop, ok := leaf.ErrorKind.(*kind.RefCycle); ok {
			return fmt.Errorf("the reference %s leads back to itself", loop.KeywordLocation1)
		}
	}
	return nil
}

// noLoader refuses to load schemas.
type noLoader struct{}

var _ jsonschema.URLLoader = noLoader{}

func (noLoader) Load(string) (any, error) {
	return nil, errors.New("schemas are not loaded from elsewhere: define it under $defs")
}

// Validate returns the parts of a JSON value that do not match, ordered by place. Numbers
// are compared exactly; the arithmetic is bounded by the limits on the value's numbers.
func (s *Schema) Validate(value json.RawMessage) []Fault {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		return []Fault{{Message: "not JSON: " + err.Error()}}
	}
	err = s.compiled.Validate(v)
	if err == nil {
		return nil
	}
	if invalid, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
		return faults(invalid)
	}
	return []Fault{{Message: err.Error()}}
}

// maxFaults bounds how many faults of a value are reported.
const maxFaults = 50

// faults returns the leaves of a validation error.
func faults(e *jsonschema.ValidationError) []Fault {
	var out []Fault
	printer := message.NewPrinter(language.English)
	for leaf := range leaves(e) {
		out = append(out, Fault{pointerOf(leaf.InstanceLocation), describe(leaf.ErrorKind, printer)})
		if len(out) == maxFaults {
			break
		}
	}
	slices.SortStableFunc(out, func(a, b Fault) int { return strings.Compare(a.Pointer, b.Pointer) })
	return slices.Compact(out)
}

// leaves iterates over the actual faults of a validation error: its inner nodes only say
// that something below them is wrong.
func leaves(e *jsonschema.ValidationError) iter.Seq[*jsonschema.ValidationError] {
	return func(yield func(*jsonschema.ValidationError) bool) {
		for open := []*jsonschema.ValidationError{e}; len(open) > 0; {
			e := open[len(open)-1]
			open = open[:len(open)-1]
			if len(e.Causes) == 0 && !yield(e) {
				return
			}
			for _, cause := range slices.Backward(e.Causes) {
				open = append(open, cause)
			}
		}
	}
}

// describe words a fault. The library would show numbers as floats.
func describe(fault jsonschema.ErrorKind, printer *message.Printer) string {
	switch k := fault.(type) {
	case *kind.Minimum:
		return exact(k.Got) + " is less than the minimum " + exact(k.Want)
	case *kind.Maximum:
		return exact(k.Got) + " is more than the maximum " + exact(k.Want)
	case *kind.ExclusiveMinimum:
		return exact(k.Got) + " is not more than " + exact(k.Want)
	case *kind.ExclusiveMaximum:
		return exact(k.Got) + " is not less than " + exact(k.Want)
	case *kind.MultipleOf:
		return exact(k.Got) + " is not a multiple of " + exact(k.Want)
	default:
		return payload.Text(fault.LocalizedString(printer), maxText)
	}
}

const (
	maxText   = 500 // bytes shown of one fault, which may quote the value
	maxDigits = 60  // shown of a number
)

// exact formats a number with all its digits, as long as that is readable.
func exact(r *big.Rat) string {
	digits, _ := r.FloatPrec()
	text := r.FloatString(digits)
	if len(text) > maxDigits {
		return text[:maxDigits] + "…"
	}
	return text
}

func pointerOf(tokens []string) string {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	var b strings.Builder
	for _, t := range tokens {
		b.WriteString("/" + escape.Replace(t))
	}
	return b.String()
}
