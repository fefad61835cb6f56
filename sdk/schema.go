package sdk

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// schema is the part of JSON Schema that Go types need.
type schema struct {
	Draft       string             `json:"$schema,omitempty"`
	Type        string             `json:"type,omitempty"`
	Format      string             `json:"format,omitempty"`
	Description string             `json:"description,omitempty"`
	Default     any                `json:"default,omitempty"`
	Minimum     *int               `json:"minimum,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	// Additional is false for a struct, and the schema of the values for a map.
	Additional any `json:"additionalProperties,omitempty"`
}

var (
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonType     = reflect.TypeFor[json.Unmarshaler]()
	timeType     = reflect.TypeFor[time.Time]()
	durationType = reflect.TypeFor[time.Duration]()
	numberType   = reflect.TypeFor[json.Number]()
)

const maxSchemaDepth = 16

// schemaOf describes a Go type as encoding/json reads it.
func schemaOf(t reflect.Type, depth int) (*schema, error) {
	if depth > maxSchemaDepth {
		return nil, errors.New("the type is nested too deeply or contains itself")
	}
	switch {
	case t == durationType:
		return nil, errors.New("time.Duration is a bare number in JSON: use sdk.Duration")
	case t == timeType:
		return &schema{Type: "string", Format: "date-time"}, nil
	case t == numberType:
		return &schema{Type: "number"}, nil
	case reflect.PointerTo(t).Implements(jsonType):
		return &schema{}, nil
	case reflect.PointerTo(t).Implements(textType):
		return &schema{Type: "string"}, nil
	}
	switch t.Kind() {
	case reflect.Bool:
		return &schema{Type: "boolean"}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return &schema{Type: "integer"}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &schema{Type: "integer", Minimum: new(int)}, nil
	case reflect.Float32, reflect.Float64:
		return &schema{Type: "number"}, nil
	case reflect.String:
		return &schema{Type: "string"}, nil
	case reflect.Interface:
		return &schema{}, nil
	case reflect.Pointer:
		return schemaOf(t.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return &schema{Type: "string", Format: "byte"}, nil
		}
		items, err := schemaOf(t.Elem(), depth+1)
		return &schema{Type: "array", Items: items}, err
	case reflect.Map:
		values, err := schemaOf(t.Elem(), depth+1)
		return &schema{Type: "object", Additional: values}, err
	case reflect.Struct:
		return schemaOfStruct(t, depth)
	default:
		return nil, fmt.Errorf("a %s cannot be represented in JSON", t)
	}
}

func schemaOfStruct(t reflect.Type, depth int) (*schema, error) {
	s := &schema{Type: "object", Properties: map[string]*schema{}, Additional: false}
	var problems []error
	for _, f := range reflect.VisibleFields(t) {
		name, ok := fieldName(f)
		if !ok {
			continue
		}
		property, err := schemaOf(f.Type, depth+1)
		if err != nil {
			problems = append(problems, fmt.Errorf("field %s: %w", f.Name, err))
			continue
		}
		property.Description = f.Tag.Get("doc")
		s.Properties[name] = property
	}
	return s, errors.Join(problems...)
}

// fieldName returns the key of a field in JSON; ok is false if it has none.
func fieldName(f reflect.StructField) (name string, ok bool) {
	tag := f.Tag.Get("json")
	if !f.IsExported() || tag == "-" || (f.Anonymous && tag == "") {
		return "", false
	}
	name, _, _ = strings.Cut(tag, ",")
	if name == "" {
		name = f.Name
	}
	return name, true
}

// setDefaults writes the values of a struct's fields into its schema.
func (s *schema) setDefaults(values json.RawMessage) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(values, &fields) != nil {
		return
	}
	for name, value := range fields {
		property, ok := s.Properties[name]
		switch {
		case !ok || string(value) == "null":
		case len(property.Properties) > 0:
			property.setDefaults(value)
		default:
			property.Default = value
		}
	}
}
