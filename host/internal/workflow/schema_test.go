package workflow

import (
	"encoding/json"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const orderSchema = `{
  "type": "object",
  "required": ["order_id", "lines"],
  "additionalProperties": false,
  "properties": {
    "order_id": {"type": "integer", "minimum": 9007199254740993},
    "email": {"type": "string", "format": "email"},
    "a/b~c": {"type": "string"},
    "amount": {"type": "number", "maximum": 0.3},
    "lines": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/line"}}
  },
  "$defs": {"line": {"type": "object", "properties": {"qty": {"type": "integer"}}}}
}`

func TestInputSchema(t *testing.T) {
	t.Parallel()
	input, err := CompileInput(&Plan{InputSchema: json.RawMessage(orderSchema)})
	require.NoError(t, err)
	for in, want := range map[string][][2]string{
		`{"order_id": 9007199254740993, "lines": [{"qty": 1}]}`:                    nil,
		`{"order_id": 123456789012345678901234567890, "lines": [{}]}`:              nil,
		`{"order_id": 9007199254740993.0, "lines": [{"qty": 1e0}], "amount": 0.3}`: nil,
		// One less than the minimum: the two are equal as floats.
		`{"order_id": 9007199254740992, "lines": [{}]}`: {{"/order_id", "9007199254740992 is less than the minimum 9007199254740993"}},
		`{}`: {{"", "missing properties 'order_id', 'lines'"}},
		`[]`: {{"", "got array, want object"}},
		`{"order_id": "x", "lines": [{"qty": 1.5}, 3], "email": "nobody", "a/b~c": 1, "amount": 0.30000000000000001, "other": 1}`: {
			{"", "additional properties 'other' not allowed"},
			{"/amount", "0.30000000000000001 is more than the maximum 0.3"},
			{"/a~1b~0c", "got number, want string"},
			{"/email", "'nobody' is not valid email: missing @"},
			{"/lines/0/qty", "got number, want integer"},
			{"/lines/1", "got number, want object"},
			{"/order_id", "got string, want integer"},
		},
		`{`: {{"", "not JSON: unexpected EOF"}},
	} {
		err := input.Validate(json.RawMessage(in))
		if want == nil {
			require.NoError(t, err, in)
			continue
		}
		invalid, ok := errors.AsType[*InputError](err)
		require.True(t, ok, in)
		var got [][2]string
		for _, f := range invalid.Problems {
			got = append(got, [2]string{f.Pointer, f.Message})
		}
		require.Equal(t, want, got, in)
	}
	require.EqualError(t, input.Validate(json.RawMessage(`{"order_id": 1e16, "lines": []}`)),
		"the context does not match the input schema: at /lines: minItems: got 0, want 1")
}

func TestNoInputSchema(t *testing.T) {
	t.Parallel()
	input, err := CompileInput(&Plan{})
	require.NoError(t, err)
	require.NoError(t, input.Validate(json.RawMessage(`{"anything": [1, 2]}`)))
}

func TestCompileInputErrors(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		`{`, `{"type": "objekt"}`, `{"$ref": "https://example.org/x"}`, `{"$ref": "#"}`,
		`{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}`,
		`{"$schema": "https://example.org/meta"}`,
	} {
		_, err := CompileInput(&Plan{InputSchema: json.RawMessage(s)})
		require.ErrorContains(t, err, "compile input schema: ", s)
	}
}

func TestInputSchemaIsConcurrent(t *testing.T) {
	t.Parallel()
	input, err := CompileInput(&Plan{InputSchema: json.RawMessage(orderSchema)})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if input.Validate(json.RawMessage(`{"order_id": 9007199254740993, "lines": [{}]}`)) != nil ||
					input.Validate(json.RawMessage(`{"order_id": "x"}`)) == nil {
					t.Error("wrong verdict")
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkValidate(b *testing.B) {
	input, err := CompileInput(&Plan{InputSchema: json.RawMessage(orderSchema)})
	require.NoError(b, err)
	context := json.RawMessage(`{"order_id": 9007199254740993, "email": "a@example.org", "lines": [{"qty": 1}, {"qty": 2}]}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := input.Validate(context); err != nil {
			b.Fatal(err)
		}
	}
}
