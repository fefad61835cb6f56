package workflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/tasker-systems/tasker-host/host/internal/schema"
)

// InputSchema checks the contexts of a plan's tasks. It is safe for concurrent
// use; compile it once per plan.
type InputSchema struct{ schema *schema.Schema } // nil: anything goes

// InputError holds every place where a context does not match its schema.
type InputError struct{ Problems []schema.Fault }

// Error lists the problems, separated by semicolons: at /pointer: message.
func (e *InputError) Error() string {
	texts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		texts[i] = p.Message
		if p.Pointer != "" {
			texts[i] = "at " + p.Pointer + ": " + p.Message
		}
	}
	return "the context does not match the input schema: " + strings.Join(texts, "; ")
}

// CompileInput compiles the plan's input schema, see [schema.Compile].
func CompileInput(plan *Plan) (*InputSchema, error) {
	if plan.InputSchema == nil {
		return &InputSchema{}, nil
	}
	compiled, err := schema.Compile(plan.InputSchema)
	if err != nil {
		return nil, fmt.Errorf("compile input schema: %w", err)
	}
	return &InputSchema{compiled}, nil
}

// Validate checks a context, which must have passed the payload gate. The error is an
// [*InputError].
func (s *InputSchema) Validate(context json.RawMessage) error {
	if s.schema == nil {
		return nil
	}
	if faults := s.schema.Validate(context); faults != nil {
		return &InputError{faults}
	}
	return nil
}

// addSchema reports why a schema does not compile, at its place in the source.
func (r *reader) addSchema(n *node, path string, err error) {
	invalid, ok := errors.AsType[*schema.InvalidError](err)
	if !ok {
		r.add(n.position, path, "not a valid JSON Schema: %s", err)
		return
	}
	for _, f := range invalid.Faults {
		at, path := n.find(path, splitPointer(f.Pointer))
		r.add(at, path, "not a valid JSON Schema: %s", f.Message)
	}
}
