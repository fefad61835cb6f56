package sdk

import (
	"encoding/json"
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

// The numbers of the fields of a Step, see plugin.proto.
const (
	fieldCallID protowire.Number = iota + 1
	fieldHandler
	fieldTaskUUID
	fieldStepUUID
	fieldNamespace
	fieldTaskName
	fieldTaskVersion
	fieldStepName
	fieldAttempt
	fieldMaxAttempts
	fieldIdempotencyKey
	fieldLeaseID
	fieldContext
	fieldConfig
	fieldDependencies
	fieldTimeoutMS
	fieldTrace
)

// The fields of the repeated messages of a Step: a dependency and an entry of its
// trace.
const (
	fieldKey protowire.Number = iota + 1
	fieldValue
)

var errUTF8 = errors.New("a string is not valid UTF-8")

// decodeStep reads a Step from its wire format. The dozen short strings of a step
// are substrings of one copy; its values share the memory of raw, which must not be
// changed from now on.
func decodeStep(raw []byte, in *handler.Step) (callID uint64, timeoutMS uint32, err error) {
	from, to := len(raw), 0 // where the strings are: every encoder puts them together
	_ = fields(raw, func(f field) error {
		if f.number >= fieldHandler && f.number <= fieldLeaseID && f.typ == protowire.BytesType {
			from, to = min(from, f.from), max(to, f.to)
		}
		return nil
	})
	var text string
	if from < to {
		text = string(raw[from:to])
	}
	err = fields(raw, func(f field) error {
		if f.typ == protowire.VarintType {
			switch f.number {
			case fieldCallID:
				callID = f.varint
			case fieldAttempt:
				in.Attempt = int(uint32(f.varint)) // as in proto3, the rest is cut off
			case fieldMaxAttempts:
				in.MaxAttempts = int(uint32(f.varint))
			case fieldTimeoutMS:
				timeoutMS = uint32(f.varint)
			}
			return nil
		}
		if f.typ != protowire.BytesType {
			return nil
		}
		value := raw[f.from:f.to:f.to]
		switch f.number {
		case fieldContext:
			in.Context = value
		case fieldConfig:
			in.Config = value
		case fieldDependencies:
			name, result, err := decodePair(value)
			if in.Dependencies == nil {
				in.Dependencies = make(map[string]json.RawMessage)
			}
			in.Dependencies[name] = result
			return err
		case fieldTrace:
			name, header, err := decodePair(value)
			if name == traceparent {
				in.Traceparent = string(header)
			}
			if !utf8.Valid(header) {
				return errUTF8
			}
			return err
		default:
			if into := textOf(in, f.number); into != nil {
				*into = text[f.from-from : f.to-from]
				if !utf8.ValidString(*into) {
					return errUTF8
				}
			}
		}
		return nil
	})
	return callID, timeoutMS, err
}

// traceparent is the header of a W3C trace context that is passed to handlers.
const traceparent = "traceparent"

// textOf returns where a string of a step is stored; nil: the field is not a
// string.
func textOf(in *handler.Step, number protowire.Number) *string {
	switch number {
	case fieldHandler:
		return &in.Handler
	case fieldTaskUUID:
		return &in.TaskUUID
	case fieldStepUUID:
		return &in.StepUUID
	case fieldNamespace:
		return &in.Namespace
	case fieldTaskName:
		return &in.Task
	case fieldTaskVersion:
		return &in.Version
	case fieldStepName:
		return &in.Name
	case fieldIdempotencyKey:
		return &in.IdempotencyKey
	case fieldLeaseID:
		return &in.LeaseID
	default:
		return nil
	}
}

// decodePair reads a message that consists of a name and a value.
func decodePair(raw []byte) (name string, value []byte, err error) {
	err = fields(raw, func(f field) error {
		switch {
		case f.typ != protowire.BytesType:
		case f.number == fieldKey:
			if name = string(raw[f.from:f.to]); !utf8.ValidString(name) {
				return errUTF8
			}
		case f.number == fieldValue:
			value = raw[f.from:f.to:f.to]
		}
		return nil
	})
	return name, value, err
}

// field is a field of a message: a number, or a range of the message's bytes.
type field struct {
	number   protowire.Number
	typ      protowire.Type
	varint   uint64
	from, to int
}

// fields calls f for every field of a message, in the message's order.
func fields(raw []byte, f func(field) error) error {
	for at := 0; at < len(raw); {
		var found field
		var n int
		found.number, found.typ, n = protowire.ConsumeTag(raw[at:])
		if n < 0 {
			return protowire.ParseError(n)
		}
		at += n
		switch found.typ {
		case protowire.VarintType:
			found.varint, n = protowire.ConsumeVarint(raw[at:])
		case protowire.BytesType:
			var value []byte
			value, n = protowire.ConsumeBytes(raw[at:])
			found.from, found.to = at+n-len(value), at+n
		default:
			n = protowire.ConsumeFieldValue(found.number, found.typ, raw[at:])
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(found); err != nil {
			return err
		}
		at += n
	}
	return nil
}
