package payload

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

// order is a context of ordinary size and shape.
const order = `{"order_id": 12345, "customer": {"name": "Ann Example", "email": "ann@example.org", "tags": ["a","b","c"]},
 "lines": [{"sku": "A-1", "qty": 2, "price": 12.50}, {"sku": "B-2", "qty": 1, "price": 99.99}],
 "note": "please deliver to the back door, thank you very much indeed"}`

func documents() map[string][]byte {
	keys := make([]string, 20_000)
	for i := range keys {
		keys[i] = `"key` + strconv.Itoa(i) + `":` + strconv.Itoa(i*7919)
	}
	return map[string][]byte{
		"small":   []byte(`{"even_number":8}`),
		"order":   []byte(order),
		"text":    []byte(`{"text":"` + strings.Repeat("the quick brown fox jumps over the lazy dog. ", 2000) + `"}`),
		"unicode": []byte(`{"text":"` + strings.Repeat("größer als früher 日本語 ", 2000) + `"}`),
		"numbers": []byte("[" + strings.Repeat("12345.678,-1,", 5000) + "0]"),
		"orders":  []byte("[" + strings.Repeat(order+",", 300) + order + "]"),
		"keys":    []byte("{" + strings.Join(keys, ",") + "}"),
	}
}

func BenchmarkCheck(b *testing.B) {
	for name, raw := range documents() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if err := Check(raw, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkJSONValid is the baseline: the standard library's check, which finds less.
func BenchmarkJSONValid(b *testing.B) {
	for name, raw := range documents() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if !json.Valid(raw) {
					b.Fatal("invalid")
				}
			}
		})
	}
}

func BenchmarkIdentity(b *testing.B) {
	raw := []byte(order)
	b.ReportAllocs()
	for b.Loop() {
		Identity("namespace", "name", "1.0.0", raw)
	}
}
