package pluginhost

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/tasker-systems/tasker-host/host/internal/schema"
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
func checkOptions(text string, options json.RawMessage) ([]schema.Fault, error) {
	if text == "" {
		return nil, nil
	}
	compiled, err := schema.Compile([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("the schema of its options: %w", err)
	}
	return compiled.Validate(options), nil
}

func faultsOf(fields []*pluginv1.FieldError) []schema.Fault {
	faults := make([]schema.Fault, len(fields))
	for i, f := range fields {
		faults[i] = schema.Fault{Pointer: f.GetPath(), Message: f.GetMessage()}
	}
	return faults
}

// optionErrors says where the operator finds the options that are refused. What
// is said of them may hold their values, so secrets are taken out of it.
func (s *slot) optionErrors(faults []schema.Fault, secrets []string) error {
	if len(faults) == 0 {
		return nil
	}
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = s.host.cfg.Options.Place(s.id, f.Pointer, redact(f.Message, secrets))
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
