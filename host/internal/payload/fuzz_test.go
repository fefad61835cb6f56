package payload

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// oracle is the gate written simply with the standard library: slow, and it can judge the
// size only of integers without exponents. It reports whether a document passes, and
// whether it can tell.
func oracle(raw []byte) (passes, known bool) {
	if !utf8.Valid(raw) || !json.Valid(raw) || len(raw) > DefaultMaxBytes {
		return false, true
	}
	if bytes.Contains(raw, []byte("\uFFFD")) || bytes.Contains(bytes.ToLower(raw), []byte(`\ufffd`)) {
		return false, false // cannot be distinguished from what the decoder makes of lone surrogates
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	type level struct {
		keys map[string]bool // nil in an array
		key  bool            // a key is expected next
	}
	var stack []level
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return true, true
		} else if err != nil {
			return false, true
		}
		top := len(stack) - 1
		if text, ok := token.(string); ok {
			if strings.ContainsAny(text, "\x00\uFFFD") {
				return false, true
			}
			if top >= 0 && stack[top].key {
				if stack[top].keys[text] {
					return false, true
				}
				stack[top].keys[text] = true
				stack[top].key = false
				continue
			}
		}
		if n, ok := token.(json.Number); ok && (strings.ContainsAny(string(n), "eE") || len(n) > maxFraction) {
			return false, false
		}
		if d, ok := token.(json.Delim); ok && (d == '}' || d == ']') {
			stack = stack[:top]
			top--
		} else if ok {
			if len(stack) == DefaultMaxDepth {
				return false, true
			}
			if top >= 0 && stack[top].keys != nil {
				stack[top].key = true
			}
			l := level{key: d == '{'}
			if l.key {
				l.keys = map[string]bool{}
			}
			stack = append(stack, l)
			continue
		}
		if top >= 0 && stack[top].keys != nil {
			stack[top].key = true
		}
	}
}

// holds checks everything that must be true of any document.
func holds(t require.TestingT, raw []byte) {
	before := bytes.Clone(raw)
	err := Check(raw, Limits{})
	require.Equal(t, before, raw, "the gate changed the document")
	if passes, known := oracle(raw); known {
		require.Equal(t, passes, err == nil, "%q: %v", raw, err)
	}
	Identity("a", "b", "1.0.0", raw)
	if err != nil {
		require.True(t, utf8.ValidString(err.Error()) && len(err.Error()) < 2000, "%q", err)
		return
	}
	require.True(t, json.Valid(raw))
	text := canonical(nil, raw)
	require.NoError(t, Check(text, Limits{MaxBytes: HardMaxBytes}), "%q", text)
	require.Equal(t, string(text), string(canonical(nil, text)))
	require.True(t, equal(t, raw, text), "%q", text)
}

func equal(t require.TestingT, a, b []byte) bool {
	var x, y any
	for raw, into := range map[*[]byte]*any{&a: &x, &b: &y} {
		d := json.NewDecoder(bytes.NewReader(*raw))
		d.UseNumber()
		require.NoError(t, d.Decode(into))
	}
	return reflect.DeepEqual(x, y)
}

func FuzzCheck(f *testing.F) {
	for _, d := range corpus(f) {
		f.Add([]byte(d.text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { holds(t, raw) })
}

func FuzzText(f *testing.F) {
	f.Add("error \x1b[31m\xff\x00\n", 12)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		got := Text(s, limit)
		require.LessOrEqual(t, len(got), max(limit, 0))
		require.True(t, utf8.ValidString(got))
		require.Equal(t, got, Text(got, limit), "not stable")
		for _, r := range got {
			require.False(t, r < 0x20 || r == 0x7f, "%q", got)
		}
	})
}

// Documents composed of pieces at the edges of the rules.
func TestCheckAgreesWithOracle(t *testing.T) {
	t.Parallel()
	piece := rapid.SampledFrom([]string{
		`{`, `}`, `[`, `]`, `,`, `:`, ` `, `"a"`, `"\u0061"`, `"b"`, `"\u0000"`, `"\ud83d\ude00"`, `"\ud83d"`, `"` + "\xff" + `"`,
		`1`, `-0`, `1.5`, `01`, `true`, `null`, `{"a":1}`, `[1,2]`, `{"a":{"a":[{}]}}`, `"abcdefgh`, `\\`, `"`, "\x00", "\n",
	})
	rapid.Check(t, func(t *rapid.T) {
		holds(t, []byte(strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(t, "pieces"), "")))
	})
}

// The range of a number, calculated with big integers: numeric keeps 131,072 digits
// before the point and 16,383 after it.
func TestNumberRangeAgreesWithArithmetic(t *testing.T) {
	t.Parallel()
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(maxWhole), nil)
	rapid.Check(t, func(t *rapid.T) {
		mantissa := rapid.StringMatching(`(0|[1-9][0-9]{0,6})(\.[0-9]{1,6})?`).Draw(t, "mantissa")
		around := rapid.SampledFrom([]int{0, maxWhole, -maxFraction}).Draw(t, "around")
		exponent := around + rapid.IntRange(-8, 8).Draw(t, "exponent")
		text := mantissa + "e" + big.NewInt(int64(exponent)).String()

		whole, fraction, _ := strings.Cut(mantissa, ".")
		digits, _ := new(big.Int).SetString(whole+fraction, 10)
		shift := exponent - len(fraction) // value = digits · 10^shift
		fits := -shift <= maxFraction
		if shift > 0 {
			value := new(big.Int).Mul(digits, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(shift)), nil))
			fits = fits && value.Cmp(limit) < 0
		}
		require.Equal(t, fits, Check([]byte(text), Limits{}) == nil, text)
	})
}
