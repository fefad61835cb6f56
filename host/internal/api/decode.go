package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
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
		return describeJSON(data, err)
	}
	return nil
}

// unmarshalGeneric passes the body through the payload gate and decodes it for
// the schema check, which understands float64 only. Numbers are approximated
// here and nowhere else: the values that are kept are decoded as raw bytes.
func unmarshalGeneric(data []byte, v *any) error {
	if err := gate(data); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(v); err != nil {
		return describeJSON(data, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("unexpected data after the JSON value at byte %d", dec.InputOffset())
	}
	*v = approximate(*v)
	return nil
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

// describeJSON gives a decoding error its place in words of the client's.
func describeJSON(data []byte, err error) error {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		line, col := position(data, e.Offset)
		return fmt.Errorf("not valid JSON at line %d, column %d: %s", line, col, e.Error())
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s: unexpected JSON %s", e.Field, e.Value)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("not valid JSON: it ends too early")
	}
	return err
}

// position returns the 1-based line and column of the byte before offset.
func position(data []byte, offset int64) (line, col int) {
	before := data[:min(max(offset-1, 0), int64(len(data)))]
	line = bytes.Count(before, []byte{'\n'}) + 1
	col = len(before) - bytes.LastIndexByte(before, '\n')
	return line, col
}

// jsonObject is a JSON object whose bytes are kept as they came.
type jsonObject struct{ json.RawMessage }

// Schema says what OpenAPI shows and what huma checks.
func (jsonObject) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}
