package schema_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/schema"
)

// An invalid schema causes an error of one line; it reads no file and no address, and its
// extent is bounded.
func TestCompile(t *testing.T) {
	t.Parallel()
	// Each definition contains two of the next: a kilobyte amounts to a million rules.
	doubling := `{"$ref": "#/$defs/d0", "$defs": {`
	for i := range 20 {
		doubling += fmt.Sprintf(`"d%d": {"allOf": [{"$ref": "#/$defs/d%d"}, {"$ref": "#/$defs/d%d"}]}, `, i, i+1, i+1)
	}
	doubling += `"d20": {}}}`
	for raw, want := range map[string]string{
		`{"type":`:                               "not JSON",
		`{"type": 7}`:                            "at /type: ",
		`{"pattern": "("}`:                       "at /pattern: ",
		`{"$ref": "file:///etc/passwd"}`:         "not loaded from elsewhere",
		`{"$ref": "https://example.org/x.json"}`: "not loaded from elsewhere",
		`{"$ref": "#name"}`:                      "by JSON pointers",
		`{"items": {"$dynamicRef": "#x"}}`:       "by JSON pointers",
		`{"$ref": "#/$defs/absent"}`:             "absent",
		`{"$ref": "#"}`:                          "leads back to itself",
		doubling:                                 "more than 50000 values",
		strings.Repeat(`{"not":`, 99) + `{}` + strings.Repeat(`}`, 99): "nested more than 64 deep",
	} {
		_, err := schema.Compile([]byte(raw))
		require.ErrorContains(t, err, want, raw)
		require.NotContains(t, err.Error(), "\n")
	}
}

// A schema may refer to itself, and to names that need escapes.
func TestReferences(t *testing.T) {
	t.Parallel()
	s, err := schema.Compile([]byte(`{"$ref": "#/$defs/a~1%20b", "$defs": {"a/ b": {"properties": {"next": {"$ref": "#"}, "$ref": {"type": "string"}}, "additionalProperties": false}}}`))
	require.NoError(t, err)
	require.Empty(t, s.Validate(json.RawMessage(`{"next": {"next": {}}, "$ref": "x"}`)))
	faults := s.Validate(json.RawMessage(`{"next": {"next": {"other": 1}}, "$ref": "x"}`))
	require.Len(t, faults, 1)
	require.Equal(t, "/next/next", faults[0].Pointer)
}

// Numbers are reported with all digits, formats are enforced, and messages are bounded.
func TestFaults(t *testing.T) {
	t.Parallel()
	s, err := schema.Compile([]byte(`{"properties": {"n": {"maximum": 9007199254740993}, "mail": {"format": "email"}, "all": {"items": {"type": "string"}}}}`))
	require.NoError(t, err)
	require.Equal(t, []schema.Fault{{"/n", "9007199254740994 is more than the maximum 9007199254740993"}}, s.Validate(json.RawMessage(`{"n": 9007199254740994}`)))
	require.Empty(t, s.Validate(json.RawMessage(`{"n": 9007199254740993, "mail": "a@example.org"}`)))
	require.Equal(t, "/mail", s.Validate(json.RawMessage(`{"mail": "nobody"}`))[0].Pointer)
	require.Len(t, s.Validate(json.RawMessage(`{"all": [`+strings.Repeat("1, ", 999)+`1]}`)), 50)
	require.Contains(t, s.Validate(json.RawMessage(`{`))[0].Message, "not JSON")
}
