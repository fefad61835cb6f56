package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Batches go to the database and come back as arrays, a dozen for each. pgx would
// look at every element by reflection and put it on the heap. A codec of our own
// handles the slices that batches are made of, and leaves everything else to pgx.

// registerArrays makes a connection use the codec.
func registerArrays(_ context.Context, c *pgx.Conn) error {
	registerIn(c.TypeMap())
	return nil
}

func registerIn(m *pgtype.Map) {
	for _, oid := range []uint32{pgtype.UUIDArrayOID, pgtype.Int4ArrayOID, pgtype.Int8ArrayOID, pgtype.TextArrayOID, pgtype.ByteaArrayOID} {
		t, _ := m.TypeForOID(oid)
		if of, ok := t.Codec.(*pgtype.ArrayCodec); ok {
			m.RegisterType(&pgtype.Type{Name: t.Name, OID: oid, Codec: arrayCodec{of}})
		}
	}
}

// arrayCodec is pgx's codec of an array type, except for the slices in encoder and
// decoder.
type arrayCodec struct{ *pgtype.ArrayCodec }

// PlanEncode implements [pgtype.Codec].
func (c arrayCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if format == pgtype.BinaryFormatCode {
		if plan := encoder(c.ElementType.OID, value); plan != nil {
			return plan
		}
	}
	return c.ArrayCodec.PlanEncode(m, oid, format, value)
}

// PlanScan implements [pgtype.Codec].
func (c arrayCodec) PlanScan(m *pgtype.Map, oid uint32, format int16, target any) pgtype.ScanPlan {
	if format == pgtype.BinaryFormatCode {
		if plan := decoder(c.ElementType.OID, target); plan != nil {
			return plan
		}
	}
	return c.ArrayCodec.PlanScan(m, oid, format, target)
}

// encoder returns the plan that encodes a slice as an array of a type; nil: pgx's own.
func encoder(element uint32, value any) pgtype.EncodePlan {
	switch value.(type) {
	case []vocab.UUID:
		return encodes(element, pgtype.UUIDOID, func(b []byte, v *vocab.UUID) ([]byte, bool) { return append(b, v[:]...), true })
	case []int32:
		return encodes(element, pgtype.Int4OID, func(b []byte, v *int32) ([]byte, bool) { return appendInt32(b, *v), true })
	case []*int32:
		return encodes(element, pgtype.Int4OID, orNull(func(b []byte, v int32) []byte { return appendInt32(b, v) }))
	case []int64:
		return encodes(element, pgtype.Int8OID, func(b []byte, v *int64) ([]byte, bool) { return appendInt64(b, *v), true })
	case []*int64:
		return encodes(element, pgtype.Int8OID, orNull(func(b []byte, v int64) []byte { return appendInt64(b, v) }))
	case []string:
		return encodes(element, pgtype.TextOID, func(b []byte, v *string) ([]byte, bool) { return append(b, *v...), true })
	case []*string:
		return encodes(element, pgtype.TextOID, orNull(func(b []byte, v string) []byte { return append(b, v...) }))
	case []json.RawMessage: // as text
		return encodes(element, pgtype.TextOID, func(b []byte, v *json.RawMessage) ([]byte, bool) { return append(b, *v...), *v != nil })
	case [][]byte:
		return encodes(element, pgtype.ByteaOID, func(b []byte, v *[]byte) ([]byte, bool) { return append(b, *v...), *v != nil })
	default:
		return nil
	}
}

func appendInt32(b []byte, v int32) []byte { return binary.BigEndian.AppendUint32(b, uint32(v)) }

func appendInt64(b []byte, v int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(v)) }

// orNull encodes the value that a pointer points to; nil is NULL.
func orNull[E any](put func([]byte, E) []byte) func([]byte, **E) ([]byte, bool) {
	return func(b []byte, v **E) ([]byte, bool) {
		if *v == nil {
			return b, false
		}
		return put(b, **v), true
	}
}

// encodes returns a plan if the array's elements have the type that put encodes.
func encodes[E any](element, wanted uint32, put func([]byte, *E) ([]byte, bool)) pgtype.EncodePlan {
	if element != wanted {
		return nil
	}
	return encodePlan[E]{element, put}
}

// encodePlan encodes a slice. put appends an element; false stands for NULL.
type encodePlan[E any] struct {
	element uint32
	put     func(buf []byte, v *E) ([]byte, bool)
}

// The header of an array of one dimension: dimensions, whether there are NULLs,
// the type of the elements, and the dimension: its length and where it begins.
const (
	emptyHeader = 12
	arrayHeader = 20
)

// Encode implements [pgtype.EncodePlan].
func (p encodePlan[E]) Encode(value any, buf []byte) ([]byte, error) {
	all := value.([]E)
	if all == nil {
		return nil, nil
	}
	header := len(buf)
	buf = append(buf, make([]byte, arrayHeader)...)
	nulls := uint32(0)
	for i := range all {
		at := len(buf)
		buf = append(buf, 0xff, 0xff, 0xff, 0xff) // the length of NULL
		var there bool
		if buf, there = p.put(buf, &all[i]); there {
			binary.BigEndian.PutUint32(buf[at:], uint32(len(buf)-at-4)) // far below 2^31
		} else {
			nulls = 1
		}
	}
	binary.BigEndian.PutUint32(buf[header:], 1)
	binary.BigEndian.PutUint32(buf[header+4:], nulls)
	binary.BigEndian.PutUint32(buf[header+8:], p.element)
	binary.BigEndian.PutUint32(buf[header+12:], uint32(len(all))) // far below 2^31
	binary.BigEndian.PutUint32(buf[header+16:], 1)
	return buf, nil
}

var errArray = errors.New("not an array of the type asked for")

// decoder returns the plan that decodes an array of a type into a slice; nil: pgx's own.
func decoder(element uint32, target any) pgtype.ScanPlan {
	switch target.(type) {
	case *[]vocab.UUID:
		return decodes(element, pgtype.UUIDOID, func(raw []byte, v *vocab.UUID) bool { return copy(v[:], raw) == len(raw) && len(raw) == len(v) })
	case *[]int32:
		return decodes(element, pgtype.Int4OID, func(raw []byte, v *int32) bool {
			if len(raw) != 4 {
				return false
			}
			*v = int32(binary.BigEndian.Uint32(raw))
			return true
		})
	case *[]string:
		return decodes(element, pgtype.TextOID, func(raw []byte, v *string) bool { *v = string(raw); return true })
	case *[]Verdict:
		return decodes(element, pgtype.TextOID, func(raw []byte, v *Verdict) bool { *v = verdictOf(raw); return true })
	default:
		return nil
	}
}

// verdictOf avoids copying what is nearly always the same word.
func verdictOf(raw []byte) Verdict {
	if string(raw) == string(Recorded) {
		return Recorded
	}
	return Verdict(raw)
}

func decodes[E any](element, wanted uint32, get func([]byte, *E) bool) pgtype.ScanPlan {
	if element != wanted {
		return nil
	}
	return scanPlan[E]{element, get}
}

// scanPlan decodes an array of at most one dimension without NULLs.
type scanPlan[E any] struct {
	element uint32
	get     func(raw []byte, v *E) bool
}

// Scan implements [pgtype.ScanPlan].
func (p scanPlan[E]) Scan(src []byte, target any) error {
	into := target.(*[]E)
	if src == nil {
		*into = nil
		return nil
	}
	if len(src) < emptyHeader || binary.BigEndian.Uint32(src[8:]) != p.element {
		return errArray
	}
	dimensions := binary.BigEndian.Uint32(src)
	if dimensions == 0 {
		*into = []E{}
		return nil
	}
	if dimensions != 1 || len(src) < arrayHeader {
		return fmt.Errorf("%w: it has %d dimensions", errArray, dimensions)
	}
	n := binary.BigEndian.Uint32(src[12:])
	src = src[arrayHeader:]
	if uint64(n)*4 > uint64(len(src)) {
		return errArray
	}
	all := make([]E, n)
	for i := range all {
		if len(src) < 4 {
			return errArray
		}
		size := binary.BigEndian.Uint32(src)
		src = src[4:]
		if uint64(size) > uint64(len(src)) || !p.get(src[:size], &all[i]) {
			return fmt.Errorf("%w: element %d", errArray, i)
		}
		src = src[size:]
	}
	*into = all
	return nil
}
