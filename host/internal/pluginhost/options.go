package pluginhost

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// Options knows more of the options in specifications than this package does.
type Options interface {
	// Resolve puts secrets in place of references. The secrets appear in no
	// message.
	Resolve(id SlotID, options json.RawMessage) (resolved json.RawMessage, secrets []string, err error)
	// Place says where the option at a JSON pointer stands, and what is wrong
	// with it.
	Place(id SlotID, pointer, message string) string
}

// verbatim is for options that are what they are.
type verbatim struct{}

func (verbatim) Resolve(_ SlotID, options json.RawMessage) (json.RawMessage, []string, error) {
	return options, nil, nil
}

func (verbatim) Place(_ SlotID, pointer, message string) string {
	if pointer == "" {
		pointer = "/"
	}
	return pointer + ": " + message
}

// optionFault is one option that is not as it should be.
type optionFault struct{ pointer, message string }

// resolve returns the options that a process gets. Those that do not fit the
// schema that the plugin serves are refused before it sees them.
func (s *slot) resolve(options json.RawMessage, schema string) (json.RawMessage, []string, error) {
	if len(options) == 0 {
		options = []byte("{}")
	}
	resolved, secrets, err := s.host.cfg.Options.Resolve(s.id, options)
	if err != nil {
		return nil, nil, err
	}
	faults, err := checkOptions(schema, resolved)
	if err != nil {
		return nil, nil, err
	}
	return resolved, secrets, s.optionErrors(faults, secrets)
}

// checkOptions compares options with a plugin's schema. The error is for a
// schema that is none.
func checkOptions(schema string, options json.RawMessage) ([]optionFault, error) {
	if schema == "" {
		return nil, nil
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		return nil, fmt.Errorf("the schema of its options is no JSON: %w", err)
	}
	if _, err := (&extent{root: doc, of: map[string]int{}}).measure(doc, 0); err != nil {
		return nil, fmt.Errorf("the schema of its options %w", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(nowhereToLoad{})
	if err := compiler.AddResource("options.json", doc); err != nil {
		return nil, fmt.Errorf("the schema of its options: %w", err)
	}
	compiled, err := compiler.Compile("options.json")
	if err != nil {
		return nil, fmt.Errorf("the schema of its options: %w", err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(options))
	if err != nil {
		return nil, fmt.Errorf("read options: %w", err)
	}
	err = compiled.Validate(value)
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if err != nil && !ok {
		return nil, fmt.Errorf("check options: %w", err)
	}
	if invalid == nil {
		return nil, nil
	}
	return leaves(invalid, nil), nil
}

// A schema may be so deep, and say so much, all that it refers to counted as often as
// it does: the host works through it, and nothing but its end ends that.
const (
	maxSchemaDepth = 64
	maxSchemaSays  = 50_000
)

// extent measures how much a schema says.
type extent struct {
	root any
	of   map[string]int // by reference; 1 while it is being measured
}

func (e *extent) measure(schema any, depth int) (n int, err error) {
	if depth > maxSchemaDepth {
		return 0, fmt.Errorf("is nested more than %d deep", maxSchemaDepth)
	}
	n = 1
	add := func(more int, err error) error {
		if n += more; err == nil && n > maxSchemaSays {
			err = fmt.Errorf("says more than %d things, with those that it refers to", maxSchemaSays)
		}
		return err
	}
	switch s := schema.(type) {
	case []any:
		for _, inner := range s {
			if err := add(e.measure(inner, depth+1)); err != nil {
				return 0, err
			}
		}
	case map[string]any:
		for key, inner := range s {
			to, refers := inner.(string)
			if refers = refers && (key == "$ref" || key == "$dynamicRef" || key == "$recursiveRef"); refers {
				err = add(e.follow(key, to, depth+1))
			} else {
				err = add(e.measure(inner, depth+1))
			}
			if err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// follow measures what a reference stands for. What a schema says of itself again
// it says of what is further inside the options, which have an end.
func (e *extent) follow(key, to string, depth int) (int, error) {
	pointer, inside := strings.CutPrefix(to, "#")
	switch {
	case !inside:
		return 0, fmt.Errorf("refers to %.80q: it refers to nothing outside itself", to)
	case key != "$ref" || pointer != "" && pointer[0] != '/':
		return 0, fmt.Errorf("has the %s %.80q: it refers to its parts by JSON pointers, as in {\"$ref\": \"#/$defs/name\"}", key, to)
	}
	if n, known := e.of[pointer]; known {
		return n, nil
	}
	e.of[pointer] = 1
	n, err := e.measure(e.at(pointer), depth)
	e.of[pointer] = n
	return n, err
}

// at returns what a pointer points to; nil if there is nothing, which the compiler
// finds too.
func (e *extent) at(pointer string) any {
	at := e.root
	if plain, err := url.PathUnescape(pointer); err == nil {
		pointer = plain
	}
	for _, part := range strings.Split(pointer, "/")[1:] {
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		switch in := at.(type) {
		case map[string]any:
			at = in[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(in) {
				return nil
			}
			at = in[i]
		default:
			return nil
		}
	}
	return at
}

// nowhereToLoad keeps a schema from naming files or addresses.
type nowhereToLoad struct{}

func (nowhereToLoad) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s: a schema of options refers to nothing outside itself", url)
}

// leaves lists the faults that have no causes of their own.
func leaves(e *jsonschema.ValidationError, all []optionFault) []optionFault {
	if len(e.Causes) == 0 {
		pointer := ""
		for _, part := range e.InstanceLocation {
			pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(part)
		}
		return append(all, optionFault{pointer, e.ErrorKind.LocalizedString(message.NewPrinter(language.English))})
	}
	for _, cause := range e.Causes {
		all = leaves(cause, all)
	}
	return all
}

func faultsOf(fields []*pluginv1.FieldError) []optionFault {
	faults := make([]optionFault, len(fields))
	for i, f := range fields {
		faults[i] = optionFault{f.GetPath(), f.GetMessage()}
	}
	return faults
}

// optionErrors says where the operator finds the options that are refused. What
// is said of them may hold their values, so secrets are taken out of it.
func (s *slot) optionErrors(faults []optionFault, secrets []string) error {
	if len(faults) == 0 {
		return nil
	}
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = s.host.cfg.Options.Place(s.id, f.pointer, redact(f.message, secrets))
	}
	slices.Sort(lines)
	return fmt.Errorf("it refuses its options: %s", clip(strings.Join(slices.Compact(lines), "; "), maxShown))
}

func redact(text string, secrets []string) string {
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	return text
}
