package workflow

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

// InputSchema checks the contexts of a plan's tasks. It is safe for concurrent
// use; compile it once per plan.
type InputSchema struct{ schema *jsonschema.Schema } // nil: anything goes

// InputProblem is one place where a context does not fit its schema.
type InputProblem struct {
	Pointer string // JSON pointer into the context; "" is the whole
	Message string
}

// InputError is every place where a context does not fit its schema.
type InputError struct{ Problems []InputProblem }

// Error lists the problems, separated by semicolons: at /pointer: message.
func (e *InputError) Error() string {
	texts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		texts[i] = p.Message
		if p.Pointer != "" {
			texts[i] = "at " + p.Pointer + ": " + p.Message
		}
	}
	return "the context does not fit the input schema: " + strings.Join(texts, "; ")
}

// CompileInput compiles the plan's input schema. Formats (email, date-time, …)
// are enforced; references out of the schema are errors, nothing is loaded.
func CompileInput(plan *Plan) (*InputSchema, error) {
	if plan.InputSchema == nil {
		return &InputSchema{}, nil
	}
	schema, err := compileSchema(plan.InputSchema)
	if err != nil {
		return nil, fmt.Errorf("compile input schema: %w", err)
	}
	return &InputSchema{schema}, nil
}

// Validate checks a context, which must have passed the payload gate: the
// bounds of its numbers are what bounds the arithmetic here. Numbers are
// compared exactly. The error is an [*InputError].
func (s *InputSchema) Validate(context json.RawMessage) error {
	if s.schema == nil {
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(context))
	if err != nil {
		return &InputError{[]InputProblem{{Message: "not JSON: " + err.Error()}}}
	}
	err = s.schema.Validate(value)
	if err == nil {
		return nil
	}
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return &InputError{[]InputProblem{{Message: err.Error()}}}
	}
	return &InputError{inputProblems(invalid)}
}

// maxInputProblems bounds how many problems of a context are told.
const maxInputProblems = 50

// inputProblems tells the leaves of a validation error.
func inputProblems(e *jsonschema.ValidationError) []InputProblem {
	var out []InputProblem
	printer := message.NewPrinter(language.English)
	for leaf := range leaves(e) {
		out = append(out, InputProblem{pointerOf(leaf.InstanceLocation), describeFault(leaf.ErrorKind, printer)})
		if len(out) == maxInputProblems {
			break
		}
	}
	slices.SortStableFunc(out, func(a, b InputProblem) int { return strings.Compare(a.Pointer, b.Pointer) })
	return slices.Compact(out)
}

// leaves goes through what a validation error is about: its inner nodes only
// say that something below them is wrong.
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

// describeFault words a fault. The library would show numbers as floats.
func describeFault(fault jsonschema.ErrorKind, printer *message.Printer) string {
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
		return payload.Text(fault.LocalizedString(printer), maxFaultText)
	}
}

// maxFaultText bounds what is told of one problem: it may quote the context.
const maxFaultText = 500

// exact writes a number with all its digits, as long as they can be read.
func exact(r *big.Rat) string {
	digits, _ := r.FloatPrec()
	return shown(r.FloatString(digits))
}

func pointerOf(tokens []string) string {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	var b strings.Builder
	for _, t := range tokens {
		b.WriteString("/" + escape.Replace(t))
	}
	return b.String()
}

// schemaURL names the schema for the compiler. It is no place.
const schemaURL = "template:///input_schema"

func compileSchema(raw json.RawMessage) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(noLoader{})
	if err := c.AddResource(schemaURL, doc); err != nil {
		return nil, err
	}
	schema, err := c.Compile(schemaURL)
	if err != nil {
		return nil, err
	}
	return schema, checkLoops(schema)
}

// checkLoops finds a reference that leads back to itself: it compiles, and then
// refuses every context; better that the template is refused.
func checkLoops(schema *jsonschema.Schema) error {
	err := schema.Validate(map[string]any{})
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

// noLoader refuses to load schemas from anywhere.
type noLoader struct{}

var _ jsonschema.URLLoader = noLoader{}

func (noLoader) Load(url string) (any, error) {
	return nil, errors.New("schemas are not loaded from elsewhere: define it under $defs")
}

// addSchema notes why a schema does not compile, where it stands in the source.
func (r *reader) addSchema(n *node, path string, err error) {
	schemaErr, ok := errors.AsType[*jsonschema.SchemaValidationError](err)
	if ok {
		if invalid, ok := errors.AsType[*jsonschema.ValidationError](schemaErr.Err); ok {
			for _, p := range inputProblems(invalid) {
				at, path := n.find(path, splitPointer(p.Pointer))
				r.add(at, path, "not a valid JSON Schema: %s", p.Message)
			}
			return
		}
	}
	text := strings.ReplaceAll(strings.ReplaceAll(err.Error(), schemaURL, "input_schema"), "\n", " ")
	r.add(n.position, path, "not a valid JSON Schema: %s", text)
}
