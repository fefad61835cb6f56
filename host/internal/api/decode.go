package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
)

// jsonFormat reads and writes application/json. huma asks it to decode every
// body twice: into an any, to check it against the schema, and into the typed
// input.
var jsonFormat = huma.Format{Marshal: marshalJSON, Unmarshal: unmarshalJSON}

func marshalJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // raw JSON inside stays as it is
	return enc.Encode(v)
}

func unmarshalJSON(data []byte, v any) error {
	if generic, ok := v.(*any); ok {
		return unmarshalGeneric(data, generic)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	return nil
}

// unmarshalGeneric decodes the body for the schema check, which understands only
// float64. Numbers are approximated here and nowhere else: the values that are stored
// are decoded as raw bytes.
func unmarshalGeneric(data []byte, v *any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	if fields, ok := (*v).(map[string]any); ok {
		for name := range fields {
			// Go's decoder would accept NAME for name, and so would the schema check.
			if strings.ToLower(name) != name || !isASCII(name) {
				return fmt.Errorf("unknown field %q: names of fields are lower case", name)
			}
		}
	}
	*v = approximate(*v)
	return nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

func approximate(v any) any {
	switch v := v.(type) {
	case json.Number:
		f, _ := strconv.ParseFloat(v.String(), 64) // ±Inf if out of range: fails any bound
		return f
	case []any:
		for i := range v {
			v[i] = approximate(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = approximate(v[k])
		}
	}
	return v
}

// whole is an integer, however it is written.
type whole int

// UnmarshalJSON reads a number that has passed the schema check.
func (n *whole) UnmarshalJSON(raw []byte) error {
	i, ok := payload.Integer(raw)
	if !ok {
		return fmt.Errorf("%.40s is not an integer", raw)
	}
	*n = whole(i)
	return nil
}

// jsonObject is a JSON object whose bytes are kept as received.
type jsonObject struct{ json.RawMessage }

// Schema returns what OpenAPI shows and huma checks.
func (jsonObject) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

// jsonValue is any JSON value whose bytes are kept as received.
type jsonValue struct{ json.RawMessage }

// Schema returns what OpenAPI shows and huma checks: anything.
func (jsonValue) Schema(huma.Registry) *huma.Schema { return &huma.Schema{} }
