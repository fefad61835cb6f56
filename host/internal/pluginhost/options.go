package pluginhost

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
