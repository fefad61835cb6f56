package core

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// description is the part of docs/openapi.json that the generator needs.
type description struct {
	Paths map[string]map[string]*operation `json:"paths"`
}

type operation struct {
	Parameters []struct {
		Name   string      `json:"name"`
		In     string      `json:"in"`
		Schema valueSchema `json:"schema"`
	} `json:"parameters"`
	RequestBody struct {
		Content map[string]struct {
			Schema valueSchema `json:"schema"`
		} `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Content map[string]json.RawMessage `json:"content"`
	} `json:"responses"`

	method, path string
}

// valueSchema is the part of JSON Schema that the generator supports.
type valueSchema struct {
	Ref        string                 `json:"$ref"`
	Type       any                    `json:"type"`
	Enum       []any                  `json:"enum"`
	Properties map[string]valueSchema `json:"properties"`
	Items      *valueSchema           `json:"items"`
	Maximum    int                    `json:"maximum"`
}

// generator generates requests from the description: valid ones, and all kinds of invalid
// ones.
type generator struct {
	operations []*operation
	schemas    map[string]valueSchema
	compiled   map[string]*jsonschema.Schema // of responses, by operation, status and content type
	known      map[string][]string           // existing values, by the name of a parameter
}

func newGenerator(t *testing.T, src string, known map[string][]string) *generator {
	t.Helper()
	var d description
	var components struct {
		Components struct {
			Schemas map[string]valueSchema `json:"schemas"`
		} `json:"components"`
	}
	require.NoError(t, json.Unmarshal([]byte(src), &d))
	require.NoError(t, json.Unmarshal([]byte(src), &components))
	g := &generator{schemas: components.Components.Schemas, compiled: map[string]*jsonschema.Schema{}, known: known}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(src))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	require.NoError(t, compiler.AddResource("api.json", doc))
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
			op := d.Paths[path][method]
			op.method, op.path = strings.ToUpper(method), path
			g.operations = append(g.operations, op)
			for status, r := range op.Responses {
				for kind := range r.Content {
					at := fmt.Sprintf("api.json#/paths/%s/%s/responses/%s/content/%s/schema", escape.Replace(path), method, status, escape.Replace(kind))
					g.compiled[op.key(status, kind)], err = compiler.Compile(at)
					require.NoError(t, err)
				}
			}
		}
	}
	return g
}

func (op *operation) key(status, kind string) string {
	return op.method + " " + op.path + " " + status + " " + kind
}

// sent is a request as it is sent.
type sent struct {
	op     *operation // nil: not an operation in the description
	method string
	path   string // escaped, with the query
	header http.Header
	body   string
}

func (s *sent) String() string {
	return fmt.Sprintf("%s %.300s\nheader %v\nbody %.2000q", s.method, s.path, s.header, s.body)
}

// hostile are strings that have broken something somewhere.
var hostile = []string{
	"", " ", "'", `"`, "\\", "\x00", "\n", "\r\nX-Evil: 1", "\t", "\u202e", "\ufeff", "é", "e\u0301", "𝄞", "\xff", "\xed\xa0\x80", "..", "../../etc/passwd",
	"/etc/passwd", "file:///etc/passwd", "%", "%00", "%2e%2e%2f", "{}", "[]", "null", "true", "-1", "0", "1", "-0", "1e400", "9223372036854775807", "9223372036854775808",
	"-9223372036854775809", "999999999999999999999999", "340282366920938463463374607431768211456", "NaN", "Infinity", "0x10", "1_000", "١",
	"1; drop table tasker_tasks", "' or '1'='1", "'; select pg_sleep(10) --", "$1", "$(id)", "`id`", "{{7*7}}", "${jndi:ldap://x}", "<script>alert(1)</script>",
	"a/b", "a%2fb", "q_x", "pg_catalog", "task_requests_queue", "latest", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
	"019ca9d2-7c00-7000-8000-00010000000g", "2026-02-30T00:00:00Z", "infinity", "10000000h", "1ns", "-5m", "AQEBAQ", "YTotMQ", "dDo5OTk5OTk5OTk5OTk5OTk5OTk5OQ",
	strings.Repeat("A", 300), strings.Repeat("é", 4000), strings.Repeat("%", 70), strings.Repeat("../", 100),
}

// hostileBodies are bodies that are invalid for every route.
var hostileBodies = []string{
	"", "null", "[]", `""`, "0", "true", "{", "}", "{}{}", "{} x", "\x00", "\xff\xfe", "{\"a\":}", `{"a":1,}`, `{"a":1,"a":2}`, `{'a':1}`, "{a:1}", "nul", "-", "1e999999999",
	`{"context":{"a":"\u0000"}}`, `{"context":{"a":"\ud800"}}`, "{\"context\":{\"a\":\"\xff\"}}", `{"context":{"n":1e400}}`, `{"context":{"":null}}`,
	`{"context":{"n":` + strings.Repeat("9", 5000) + `}}`, `{"__proto__":{}}`, `{"Name":"x","NAME":"y"}`, "\ufeff{}", `{"reason":"\u202e"}`, `{"reason":null,"by":null}`,
	strings.Repeat("[", 20000), strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000), `{"context":` + strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 71),
	`{"reason":"` + strings.Repeat("r", 5000) + `"}`, `{"context":{"a":"` + strings.Repeat("x", 1<<21) + `"}}`,
	"namespace: reload\nname: x\nversion: 1.0.0\nsteps: [{name: a, handler: x, depends_on: [a]}]", "a: &a [*a]", "!!binary x", "%YAML 9.9\n---\n", "- - - - -", "? x",
	"a: &x [1,1]\nb: &y [*x,*x,*x,*x,*x,*x,*x,*x]\nc: &z [*y,*y,*y,*y,*y,*y,*y,*y]\nd: &w [*z,*z,*z,*z,*z,*z,*z,*z]\ne: [*w,*w,*w,*w,*w,*w,*w,*w]",
}

// draw is the state for generating one request.
type draw struct {
	*rand.Rand
	right bool // everything must be valid
}

func pick[T any](r draw, of []T) T { return of[r.IntN(len(of))] }

// chance returns true in n of 100 cases.
func chance(r draw, n int) bool { return r.IntN(100) < n }

// wrong returns true in n of 100 cases, but never if everything must be valid.
func wrong(r draw, n int) bool { return chance(r, n) && !r.right }

// request generates a request.
func (g *generator) request(source *rand.Rand) *sent {
	r := draw{Rand: source, right: source.IntN(3) == 0}
	op := pick(r, g.operations)
	s := &sent{op: op, method: op.method, header: http.Header{}}
	if wrong(r, 5) {
		s.method = pick(r, []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND"})
	}
	query := url.Values{}
	path := op.path
	for _, p := range op.Parameters {
		value := g.parameter(r, p.Name, p.Schema)
		switch p.In {
		case "path":
			path = strings.Replace(path, "{"+p.Name+"}", url.PathEscape(value), 1)
		case "query":
			for n := r.IntN(5) / 2; n > 0 && !(r.right && n > 1); n-- { // none, one, or the same one twice
				query.Add(p.Name, g.parameter(r, p.Name, p.Schema))
			}
		case "header":
			if chance(r, 50) {
				s.header.Set(p.Name, headerValue(value))
			}
		}
	}
	if wrong(r, 5) {
		query.Set(pick(r, hostile), pick(r, hostile))
	}
	if wrong(r, 3) {
		path += pick(r, []string{"/", "/x", "//", "/..", "/%2e%2e", ";a=b"})
	}
	s.path = path
	if len(query) > 0 {
		s.path += "?" + query.Encode()
	}
	if wrong(r, 5) {
		s.header.Set(pick(r, []string{"X-Request-Id", "Traceparent", "Accept", "Authorization", "Content-Encoding", "Origin", "If-Match"}),
			headerValue(pick(r, hostile)))
	}
	if s.method == "POST" && !wrong(r, 5) || wrong(r, 3) {
		g.addBody(r, s)
	}
	return s
}

// headerValue reduces a text to what Go's client can send.
func headerValue(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, text)
}

func (g *generator) parameter(r draw, name string, schema valueSchema) string {
	switch known := g.known[name]; {
	case len(known) > 0 && !wrong(r, 40):
		return pick(r, known)
	case !wrong(r, 60):
		if v, ok := g.value(r, schema, 0).(string); ok {
			return v
		}
		return fmt.Sprint(r.IntN(20))
	default:
		return pick(r, hostile)
	}
}

func (g *generator) addBody(r draw, s *sent) {
	kinds := slices.Sorted(maps.Keys(s.op.RequestBody.Content))
	kind := "application/json"
	if len(kinds) > 0 {
		kind = kinds[0]
	}
	s.header.Set("Content-Type", kind)
	switch {
	case wrong(r, 5):
		s.header.Set("Content-Type", headerValue(pick(r, append(hostile, "text/plain", "application/json; charset=utf-16", "multipart/form-data", "application/x-yaml"))))
		fallthrough
	case wrong(r, 20) || len(kinds) == 0:
		s.body = pick(r, hostileBodies)
	case kind != "application/json":
		s.body = g.template(r)
	default:
		data, err := json.Marshal(g.value(r, s.op.RequestBody.Content[kind].Schema, 0))
		if err != nil {
			panic(err)
		}
		s.body = string(data)
		if wrong(r, 10) {
			s.body = mangle(r, s.body)
		}
	}
}

// mangle corrupts a text at a random place.
func mangle(r draw, text string) string {
	at := r.IntN(len(text) + 1)
	switch r.IntN(3) {
	case 0:
		return text[:at]
	case 1:
		return text[:at] + pick(r, hostile) + text[at:]
	default:
		return text[:at] + text[min(len(text), at+1):]
	}
}

func (g *generator) template(r draw) string {
	word := func(good string) string {
		if !wrong(r, 15) {
			return good
		}
		data, _ := json.Marshal(pick(r, hostile)) // valid YAML too
		return string(data)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "namespace: %s\nname: %s\nversion: %s\nsteps:\n", word("made"), word(fmt.Sprintf("t%d", r.IntN(3))), word(fmt.Sprintf("1.%d.0", r.IntN(4))))
	for i := range 1 + r.IntN(4) {
		fmt.Fprintf(&b, "  - name: %s\n    handler: %s\n", word(fmt.Sprintf("s%d", i)), word("x"))
		if i > 0 && chance(r, 50) {
			fmt.Fprintf(&b, "    depends_on: [%s]\n", word(fmt.Sprintf("s%d", r.IntN(i))))
		}
		if chance(r, 20) {
			fmt.Fprintf(&b, "    %s: %s\n", word("timeout"), word("5s"))
		}
	}
	if wrong(r, 10) {
		return mangle(r, b.String())
	}
	return b.String()
}

// value generates a value of a schema, and now and then one that does not match it.
func (g *generator) value(r draw, schema valueSchema, depth int) any {
	if r.right && depth > 0 && schema.Type == "object" {
		return map[string]any{"a": r.IntN(9), "b": []any{"c"}}
	}
	if name, ok := strings.CutPrefix(schema.Ref, "#/components/schemas/"); ok {
		schema = g.schemas[name]
	}
	if depth > 6 || wrong(r, 12) {
		return g.anything(r, depth)
	}
	if len(schema.Enum) > 0 {
		return pick(r, schema.Enum)
	}
	kind, _ := schema.Type.(string)
	if kinds, ok := schema.Type.([]any); ok {
		kind, _ = kinds[0].(string)
	}
	switch kind {
	case "object":
		object := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
			if chance(r, 75) {
				object[name] = g.property(r, name, schema.Properties[name], depth+1)
			}
		}
		if wrong(r, 5) {
			object[pick(r, hostile)] = g.anything(r, depth+1)
		}
		return object
	case "array":
		list := make([]any, r.IntN(4))
		for i := range list {
			list[i] = g.value(r, *schema.Items, depth+1)
		}
		return list
	case "integer", "number":
		if r.right {
			return min(60, max(schema.Maximum, 1)) // a number that suits most parameters
		}
		return pick(r, []any{0, 1, -1, 60, 1000, 4, 3.5, json.Number("1e3"), json.Number("9223372036854775808"), 1 << 40})
	case "boolean":
		return chance(r, 50)
	case "string":
		if r.right {
			return fmt.Sprintf("text%d", r.IntN(1000))
		}
		return pick(r, append([]string{"made", "t1", "1.0.0", "task:read", "why not"}, hostile...))
	default:
		return g.anything(r, depth)
	}
}

func (g *generator) property(r draw, name string, schema valueSchema, depth int) any {
	if known := g.known[name]; len(known) > 0 && !wrong(r, 40) {
		if schema.Items != nil {
			return []string{pick(r, known)}
		}
		return pick(r, known)
	}
	return g.value(r, schema, depth)
}

func (g *generator) anything(r draw, depth int) any {
	switch r.IntN(7) {
	case 0:
		return nil
	case 1:
		return chance(r, 50)
	case 2:
		return pick(r, []any{0, -1, json.Number("1e400"), json.Number("340282366920938463463374607431768211456"), json.Number("-0.000000001")})
	case 3:
		if depth < 6 {
			return []any{g.anything(r, depth+1), g.anything(r, depth+1)}
		}
		return []any{}
	case 4:
		if depth < 6 {
			return map[string]any{pick(r, hostile): g.anything(r, depth+1)}
		}
		return map[string]any{}
	default:
		return pick(r, hostile)
	}
}
