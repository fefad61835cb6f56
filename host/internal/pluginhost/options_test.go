package pluginhost

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/schema"
)

// vault knows one secret, and where options are set.
type vault struct{ err error }

func (v vault) Resolve(_ SlotID, options json.RawMessage) (json.RawMessage, []string, error) {
	return options, []string{"", "hunter2"}, v.err
}

func (vault) Place(id SlotID, pointer, message string) string {
	return "plugins.toml:7: " + id.String() + ".options" + pointer + ": " + message
}

const optionsSchema = `{"type": "object", "additionalProperties": false, "properties": {
	"key": {"enum": ["a", "b"]}, "a/b": {"type": "integer"}, "in": {"type": "object", "properties": {"n": {"minimum": 3}}}}}`

// Options are compared with the schema that the plugin serves before it gets
// them: every fault is reported with its place, and no secret.
func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.Options = vault{} }, spec("chaos", script(t, "sdk")))
	s, err := b.slot(chaosSlot)
	require.NoError(t, err)

	resolved, secrets, err := s.resolve(json.RawMessage(`{"key": "a", "a/b": 1, "in": {"n": 3}}`), optionsSchema)
	require.NoError(t, err)
	require.JSONEq(t, `{"key": "a", "a/b": 1, "in": {"n": 3}}`, string(resolved))
	require.Contains(t, secrets, "hunter2")
	for _, none := range []string{"", optionsSchema} {
		resolved, _, err = s.resolve(nil, none)
		require.NoError(t, err)
		require.Equal(t, `{}`, string(resolved))
	}

	_, _, err = s.resolve(json.RawMessage(`{"key": "hunter2", "a/b": "x", "in": {"n": 1}, "hunter2": 1}`), optionsSchema)
	for _, want := range []string{
		"it refuses its options: ", "plugins.toml:7: handler/chaos.options/key: ", "plugins.toml:7: handler/chaos.options/a~1b: ",
		"plugins.toml:7: handler/chaos.options/in/n: ", "[redacted]",
	} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "hunter2")

	// What the plugin itself says about its options is reported in the same
	// way.
	err = s.optionErrors([]schema.Fault{{Pointer: "/key", Message: "hunter2 is too short"}, {Pointer: "/key", Message: "hunter2 is too short"}}, secrets)
	require.EqualError(t, err, "it refuses its options: plugins.toml:7: handler/chaos.options/key: [redacted] is too short")
	require.NoError(t, s.optionErrors(nil, secrets))
}

// An invalid schema is the plugin's fault, and the error says so.
func TestSchemasOfOptions(t *testing.T) {
	t.Parallel()
	_, err := checkOptions(`{"type": 7}`, json.RawMessage(`{}`))
	require.ErrorContains(t, err, "the schema of its options: at /type")
	faults, err := checkOptions(`{"additionalProperties": false}`, json.RawMessage(`{"other": 1}`))
	require.NoError(t, err)
	require.Len(t, faults, 1)
	faults, err = checkOptions("", json.RawMessage(`{"other": 1}`))
	require.NoError(t, err)
	require.Empty(t, faults)

	b := newBench(t, func(c *Config) { c.Options = vault{errors.New("plugins.toml:9: no such variable")} }, spec("chaos", script(t, "sdk")))
	s, err := b.slot(chaosSlot)
	require.NoError(t, err)
	_, _, err = s.resolve(nil, "")
	require.ErrorContains(t, err, "plugins.toml:9: no such variable")
}
