package workflow

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	for kind, texts := range map[scalarKind][]string{
		nullScalar:  {"", "~", "null", "Null", "NULL"},
		boolScalar:  {"true", "False", "TRUE"},
		intScalar:   {"0", "-0", "+12", "0x1f", "0o17", strings.Repeat("9", 1000), "0x" + strings.Repeat("f", 64)},
		floatScalar: {"1.0", ".5", "-.5e3", "1.", "1e3", "+1E-2"},
		badScalar:   {"010", "-007", "00.5", "1_000", "0b1", "0x1_0", "12:30", "1:02:03", ".inf", "-.Inf", ".NaN"},
		stringScalar: {
			"yes", "nUll", "tRue", "1.0.0", "1e", "e3", "0x", "0o8", "-", "+", ".", "..", "--1", "1-2", "2020-01-01",
			"0x" + strings.Repeat("f", 65), "12h", "-0x1f", "1:60:99:x",
		},
	} {
		for _, text := range texts {
			require.Equal(t, kind, resolve(text).kind, text)
		}
	}
}

// What is read as a number is written as one, with the same digits.
func TestNumbersAreJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[-+]?(0|[1-9][0-9]{0,30})?(\.[0-9]{0,30})?([eE][-+]?[0-9]{1,3})?`).Draw(t, "number")
		s := resolve(text)
		if s.kind != intScalar && s.kind != floatScalar {
			return
		}
		require.True(t, json.Valid([]byte(s.json)), "%s → %s", text, s.json)
		digits := func(s string) string {
			return strings.Trim(strings.NewReplacer("+", "", "-", "", ".", "").Replace(s), "0")
		}
		require.Equal(t, digits(text), digits(s.json))
		require.Equal(t, text[0] == '-', s.json[0] == '-')
	})
}
