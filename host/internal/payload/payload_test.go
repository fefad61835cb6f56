package payload

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// document is a line of testdata/corpus.txt.
type document struct {
	code Code // empty: accepted
	text string
}

func corpus(tb testing.TB) []document {
	tb.Helper()
	f, err := os.Open("testdata/corpus.txt")
	require.NoError(tb, err)
	defer f.Close()
	var out []document
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		verdict, literal, found := strings.Cut(lines.Text(), "\t")
		if strings.HasPrefix(verdict, "#") {
			continue
		}
		require.True(tb, found, lines.Text())
		text, err := strconv.Unquote(literal)
		require.NoError(tb, err, literal)
		if verdict == "accept" {
			verdict = ""
		}
		out = append(out, document{Code(verdict), text})
	}
	require.NoError(tb, lines.Err())
	require.NotEmpty(tb, out)
	return out
}

func codeOf(err error) Code {
	if err == nil {
		return ""
	}
	return err.(*Error).Code
}

func TestCheckAgreesWithCorpus(t *testing.T) {
	t.Parallel()
	for _, d := range corpus(t) {
		err := Check([]byte(d.text), Limits{})
		require.Equal(t, d.code, codeOf(err), "%.200q: %v", d.text, err)
	}
}

func TestCheckNamesPlaceAndFix(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		``:                                       "the document is empty: write a JSON value",
		`{"a":{"b":["x","\u0000"]}}`:             `at /a/b/1: \u0000 (NUL) in a string cannot be stored: remove it`,
		`{"x/y":{"~":[1,2,1e999999]}}`:           "at /x~1y/~0/2: the number is out of range: at most 131072 digits before the decimal point and 16383 after it; send it as a string",
		`{"a":{"b":1,"c":[2],"\u0062":3}}`:       "at /a/b: duplicate key in an object: remove one, since readers disagree on which one counts",
		`{"a":1,"b" 2}`:                          "at /b: unexpected '2' after a key: write ':'",
		`{"a":1 "b":2}`:                          `at /a: unexpected '"' after a member: write ',' or '}'`,
		`{"a":[{},{"b":"` + "\xff" + `"}]}`:      "at /a/1/b: not UTF-8 (byte 0xff): encode the text as UTF-8, or bytes as base64",
		`{"a":"\ud800"}`:                         "at /a: half of a surrogate pair in a string: write both halves, high before low",
		`{"a":1}x`:                               "unexpected data after the value: send one JSON value",
		`{"a":tru}`:                              "at /a: not a JSON value: did you mean true?",
		`{"a":007}`:                              "at /a: a number must not begin with 0: write it without, or as a string",
		`{"a":"tab	"}`:                           "at /a: control character byte 0x09 in a string: write it as an escape",
		`{"a":{"b":`:                             "at /a/b: the document ends in the middle of a value",
		`{"` + strings.Repeat("k", 300) + `":x}`: "at /" + strings.Repeat("k", 125) + "…: unexpected 'x' where a JSON value should begin",
	} {
		require.EqualError(t, Check([]byte(in), Limits{}), want, in)
	}
}

func TestCheckObject(t *testing.T) {
	t.Parallel()
	require.NoError(t, CheckObject([]byte(" {}"), Limits{}))
	for _, in := range []string{`[]`, `null`, `"{}"`, ` 1`} {
		require.Equal(t, NotObject, codeOf(CheckObject([]byte(in), Limits{})), in)
	}
	require.Equal(t, Syntax, codeOf(CheckObject([]byte("{"), Limits{})))
	require.Equal(t, Syntax, codeOf(CheckObject(nil, Limits{})))
}

func TestLimits(t *testing.T) {
	t.Parallel()
	text := func(n int) []byte { return []byte(`"` + strings.Repeat("x", n-2) + `"`) }
	require.NoError(t, Check(text(100), Limits{MaxBytes: 100}))
	require.Equal(t, TooLarge, codeOf(Check(text(101), Limits{MaxBytes: 100})))
	require.NoError(t, Check(text(DefaultMaxBytes), Limits{}))
	require.Equal(t, TooLarge, codeOf(Check(text(DefaultMaxBytes+1), Limits{})))
	require.NoError(t, Check(text(4<<20), ResultLimits()))
	require.Equal(t, TooLarge, codeOf(Check(text(1<<20+1), ContextLimits())))
	require.Equal(t, TooLarge, codeOf(Check(text(HardMaxBytes+1), Limits{MaxBytes: 1 << 40})))

	nested := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	require.NoError(t, Check(nested(3), Limits{MaxDepth: 3}))
	require.Equal(t, TooDeep, codeOf(Check(nested(4), Limits{MaxDepth: 3})))
	require.NoError(t, Check(nested(HardMaxDepth), Limits{MaxDepth: 1 << 20}))
	require.Equal(t, TooDeep, codeOf(Check(nested(HardMaxDepth+1), Limits{MaxDepth: 1 << 20})))
	require.Equal(t, TooDeep, codeOf(Check(nested(500_000), Limits{})))
}

// A few bytes of exponent may be read back as 131,072 digits.
func TestNumbersAreCountedWrittenOut(t *testing.T) {
	t.Parallel()
	array := func(number string, n int) []byte {
		return []byte("[" + strings.Repeat(number+",", n-1) + number + "]")
	}
	require.NoError(t, Check(array("1e131071", 7), Limits{}))
	require.Equal(t, TooLarge, codeOf(Check(array("1e131071", 8), Limits{})))
	require.NoError(t, Check(array("1e-16383", 60), Limits{}))
	require.Equal(t, TooLarge, codeOf(Check(array("1e-16383", 70), Limits{})))
	require.NoError(t, Check(array("1e3", 10_000), Limits{}))
}

func TestLongNumbers(t *testing.T) {
	t.Parallel()
	whole, fraction := strings.Repeat("9", maxWhole), strings.Repeat("1", maxFraction)
	for _, in := range []string{whole, "-" + whole, "0." + fraction, whole + "." + fraction, "0." + fraction + "e1"} {
		require.NoError(t, Check([]byte(in), Limits{}), len(in))
	}
	for _, in := range []string{whole + "0", "-" + whole + "0", "0." + fraction + "0", "1." + fraction + "e-1", whole + "e1"} {
		require.Equal(t, NumberRange, codeOf(Check([]byte(in), Limits{})), len(in))
	}
}

// Many keys, with the duplicate first, last and far apart, in nested objects.
func TestDuplicatesAmongMany(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, pairwise, pairwise + 1, smallKeys, smallKeys + 1, 5000} {
		keys := make([]string, n)
		for i := range keys {
			keys[i] = `"key` + strconv.Itoa(i) + `":{"key` + strconv.Itoa(i) + `":[]}`
		}
		unique := `{"in":{` + strings.Join(keys, ",") + `},"out":1}`
		require.NoError(t, Check([]byte(unique), Limits{}), n)
		for _, i := range []int{0, n / 2, n - 1} {
			twice := `{"in":{` + strings.Join(keys, ",") + `,"\u006bey` + strconv.Itoa(i) + `":1,"key0":2},"out":1}`
			err := Check([]byte(twice), Limits{})
			require.Equal(t, DuplicateKey, codeOf(err), n)
			require.Equal(t, "/in/key"+strconv.Itoa(i), err.(*Error).Pointer)
		}
	}
}

func TestCheckDoesNotAllocate(t *testing.T) {
	for _, in := range []string{order, `{"a":{"b":{"c":{"d":[[[[1]]]]}}}}`, `{"\u0061":1,"b":1e10}`} {
		raw := []byte(in)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if Check(raw, Limits{}) != nil {
				panic("refused")
			}
		}), in)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 0, ""},
		{"plain, \"quoted\" é 😀", 100, "plain, \"quoted\" é 😀"},
		{"a\x00b", 100, "ab"},
		{"red \x1b[31m\r\n\tbell\a\x7f", 100, `red \x1b[31m\r\n\tbell\x07\x7f`},
		{"c1 \u0085 bidi \u202e\u2066 line \u2028", 100, `c1 \u0085 bidi \u202e\u2066 line \u2028`},
		{"broken \xff\xc3 real \uFFFD", 100, "broken \uFFFD\uFFFD real \uFFFD"},
		{"abcdef", 6, "abcdef"},
		{"abcdefg", 6, "abc…"},
		{"éééé", 6, "é…"},
		{"abc\n", 4, "a…"},
		{"abc", 2, ""},
		{"abc", -1, ""},
		{strings.Repeat("\x00", 100), 3, ""},
	} {
		got := Text(c.in, c.limit)
		require.Equal(t, c.want, got, "%q", c.in)
		require.LessOrEqual(t, len(got), max(c.limit, 0))
	}
}

func TestCanonical(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		` null `:                            `null`,
		`{}`:                                `{}`,
		`[ 1 , 1.0 ,1e2, -0.50,true , "x"]`: `[1,1.0,1e2,-0.50,true,"x"]`,
		`{"b":1,"a":{"z":[ ],"\u0061":"\u0041\/\n"},"ab":2}`: `{"a":{"a":"A/\u000a","z":[]},"ab":2,"b":1}`,
		`{"a!":1,"a":2,"a\"":3,"":4}`:                        `{"":4,"a":2,"a!":1,"a\"":3}`,
		`{"\ud83d\ude00":1,"é":"\u00e9","\uffff":2}`:         `{"é":"é","` + "\uffff" + `":2,"😀":1}`,
	} {
		require.NoError(t, Check([]byte(in), Limits{}), in)
		require.Equal(t, want, string(canonical(nil, []byte(in))))
	}
}

// The identity is part of what is stored: it must not change between releases.
func TestIdentity(t *testing.T) {
	t.Parallel()
	id := Identity("ns", "name", "1.0.0", []byte(`{"b":1,"a":[1.0,"x"]}`))
	// sha256sum of {"context":{"a":[1.0,"x"],"b":1},"name":"name","namespace":"ns","version":"1.0.0"}
	require.Equal(t, "4b1029ee2f57d782551b12c8dee03637571c89656e1314feb73f91cd8bdc4773", id)
	require.Equal(t, id, Identity("ns", "name", "1.0.0", []byte(` {"a": [1.0, "\u0078"], "b": 1} `)))
	for _, other := range []string{
		Identity("ns2", "name", "1.0.0", []byte(`{"b":1,"a":[1.0,"x"]}`)),
		Identity("ns", "name2", "1.0.0", []byte(`{"b":1,"a":[1.0,"x"]}`)),
		Identity("ns", "name", "1.0.1", []byte(`{"b":1,"a":[1.0,"x"]}`)),
		Identity("ns", "name", "1.0.0", []byte(`{"b":1,"a":[1,"x"]}`)),
		Identity("ns", "name", "1.0.0", nil),
		Identity("ns", "name", "1.0.0", []byte("not json")),
	} {
		require.Len(t, other, 64)
		require.NotEqual(t, id, other)
	}
	require.Equal(t, Identity("a", "b", "c", nil), Identity("a", "b", "c", []byte(" {} ")))
	require.NotEqual(t, Identity("a", `b","namespace":"c`, "1", nil), Identity("c", "b", "1", nil))
}
