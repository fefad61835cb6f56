package payload

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQuick(t *testing.T) {
	for _, in := range []string{`{}`, `[]`, ` {"a":[1,2,{"b":null}],"c":"é\ud83d\ude00"} `, `1e131071`, `"x"`, `-0.5e-3`, `[[],{},[{}]]`} {
		require.NoError(t, Check([]byte(in), Limits{}), in)
	}
	for _, in := range []string{``, `{`, `{"a":1,"\u0061":2}`, `[1,]`, `{"a":{"b":["x","\u0000"]}}`, "\"\xff\"", `"\ud800"`, `1e131072`, `1e-16384`, `01`, `{"a" 1}`, `{"a":1}x`, `tru`, strings.Repeat("[", 70), `{"x/y":{"~":[1,2,1e999999]}}`} {
		err := Check([]byte(in), Limits{})
		require.Error(t, err, in)
		t.Log(in, "→", err)
	}
	c, err := Canonical([]byte(`{"b":1.0,"a":{"z":[1, 2],"\u0061":"\u0041\n"},"ab":2}`))
	require.NoError(t, err)
	require.Equal(t, `{"a":{"a":"A\u000a","z":[1,2]},"ab":2,"b":1.0}`, string(c))
	t.Log(Text("héllo\x00\x1b[31m\nworld\xff\u202e", 200), Text(strings.Repeat("é", 10), 10))
}

var doc = []byte(`{"order_id": 12345, "customer": {"name": "Ann Example", "email": "ann@example.org", "tags": ["a","b","c"]}, "lines": [{"sku": "A-1", "qty": 2, "price": 12.50}, {"sku": "B-2", "qty": 1, "price": 99.99}], "note": "please deliver to the back door, thank you very much indeed"}`)

func BenchmarkCheck(b *testing.B) {
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if Check(doc, Limits{}) != nil {
			b.Fatal()
		}
	}
}

func BenchmarkValid(b *testing.B) {
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		json.Valid(doc)
	}
}
