package pluginhost

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/tasker-systems/tasker-host/host/internal/schema"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// Options knows more about the options in specifications than this package does.
type Options interface {
	// Resolve replaces references by secrets. No message contains the secrets.
	Resolve(id SlotID, options json.RawMessage) (resolved json.RawMessage, secrets []string, err error)
	// Place describes where the option at a JSON pointer is set, and what is wrong with
	// it.
	Place(id SlotID, pointer, message string) string
}

// verbatim is the Options of a host whose options contain no references.
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

// resolve returns the options that a process gets. Options that do not fit the plugin's
// schema are rejected before the plugin sees them.
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

// checkOptions compares options with a plugin's schema. It returns an error if the schema
// is invalid.
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

// optionErrors tells the operator where to find the rejected options. The messages may
// contain values, so secrets are removed from them.
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
