package workflow

import (
	"os"
	"path/filepath"
	"testing"
)

func TestQuick(t *testing.T) {
	files, _ := filepath.Glob("../../../plugins/examples/*/templates/*.yaml")
	for _, f := range files {
		src, _ := os.ReadFile(f)
		tm, err := ParseTemplate(f, src, Limits{})
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		plans, _ := tm.Plans()
		t.Logf("%s %d plans", tm.ID(), len(plans))
		for _, p := range plans {
			if _, err := CompileInput(&p); err != nil {
				t.Error(err)
			}
			for _, s := range p.Steps {
				t.Logf("  %s %v %v %s %+v %v", s.Name, s.Parents, s.Children, s.Config, s.Retry, s.Timeout)
			}
		}
	}
	for _, src := range []string{bad1, "", "a: [1", "x: &a\n  y: *a\n", "name: x\n---\nname: y\n"} {
		_, err := ParseTemplate("bad.yaml", []byte(src), Limits{})
		t.Logf("\n%v", err)
	}
}

const bad1 = `
namespace: Foo
name: bar
version: 1.0
descripton: x
priority: high
input_schema: {type: objekt, properties: {a: {minimum: x}}}
defaults:
  retry: { max_atempts: 3, backoff: exponental, base: 1h, cap: 2 , jitter: 1.5, retryable: yes }
  timeout: 500ms
steps:
  - name: a
    handler: h
    depends_on: [a, b, c, c, bb]
    config: {n: 12345678901234567890123, f: 1.50, h: 0x1F, o: 010, i: .inf}
  - name: b
    handler: h
    depends_on: [c]
  - name: c
    handler: h
    depends_on: [b]
    retry: {base: 1m}
  - name: a
    handlr: h
  - 5
  - name: d
    handler: h
    depends_on: b
    timeout: 30h
    timeout: 1h
    priority: 99999
environments:
  test:
    steps:
      al: {timeout: 10s}
      ALL: {retry: {cap: 1ms}}
      b:
  Prod: {}
`
