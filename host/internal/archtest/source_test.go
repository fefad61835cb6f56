package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	maxFileLines     = 700
	maxFunctionLines = 80
	maxMethods       = 5
	maxCommentLines  = 10 // of a package comment outside doc.go
)

// Exceptions, each with its reason. Functions are package.Name or
// package.Type.Name, all else paths from the module's root.
var (
	longFiles    = map[string]string{}
	longComments = map[string]string{
		"sdk/handler/handler.go": "the one file that a plugin's author opens says it all",
	}
	longFunctions  = map[string]string{}
	wideInterfaces = map[string]string{
		"sdk.service":                      "mirrors the Plugin service of the contract, which asks the same of every kind",
		"host/internal/pipeline.Store":     "what core hands the engine in one piece; its loops declare the parts they use",
		"host/internal/pipeline.hostStore": "the life of a host row and the sweep, one statement each",
	}
	initFunctions = map[string]string{}
	sleeps        = map[string]string{
		"host/internal/pluginhost/process/launcher.go": "no event tells when another process lets go of a fresh executable",
		"sdk/context_test.go":                          "under the clock of a synctest bubble, where it takes no time",
		"sdk/work_test.go":                             "what a handler under test does, not a wait for something",
		"plugins/test/chaos/start.go":                  "being slow is what it is for",
		"plugins/test/sway/main.go":                    "being late is what it is for",
	}
	clocksInScaling = map[string]string{}
	stars           = map[string]string{
		"host/internal/pgmq/interface_test.go": "calls functions of every shape; nothing reads the columns",
	}
)

// file is a parsed source file of ours.
type file struct {
	pkg  pkg
	path string // from the module's root
	test bool
	text string
	ast  *ast.File
	set  *token.FileSet
}

func (f file) generated() bool { return ast.IsGenerated(f.ast) }

func (f file) lines(n ast.Node) int {
	return f.set.Position(n.End()).Line - f.set.Position(n.Pos()).Line + 1
}

func (f file) line(n ast.Node) int { return f.set.Position(n.Pos()).Line }

func files(t *testing.T) []file {
	t.Helper()
	var list []file
	for _, p := range packages(t) {
		code, tests := p.sources()
		for i, path := range slices.Concat(code, tests) {
			src, err := os.ReadFile(path)
			require.NoError(t, err)
			set := token.NewFileSet()
			parsed, err := parser.ParseFile(set, path, src, parser.ParseComments|parser.SkipObjectResolution)
			require.NoError(t, err)
			list = append(list, file{
				pkg: p, path: relative(t, path), test: i >= len(code), text: string(src), ast: parsed, set: set,
			})
		}
	}
	return list
}

func TestOnePackageCommentPerPackage(t *testing.T) {
	t.Parallel()
	comment := allow(longComments)
	comments, code := map[string][]string{}, map[string]bool{}
	for _, f := range files(t) {
		if f.test || f.generated() {
			continue
		}
		room := f.pkg.room()
		code[room] = true
		if f.ast.Doc == nil {
			continue
		}
		comments[room] = append(comments[room], f.path)
		text := f.ast.Doc.Text()
		if f.ast.Name.Name != "main" && !strings.HasPrefix(text, "Package "+f.ast.Name.Name+" ") {
			t.Errorf("%s: the package comment begins with \"Package %s …\"", f.path, f.ast.Name.Name)
		}
		if lines := strings.Count(text, "\n"); lines > maxCommentLines && !strings.HasSuffix(f.path, "/doc.go") && f.ast.Name.Name != "main" && !comment.has(f.path) {
			t.Errorf("%s: a package comment of %d lines belongs into doc.go", f.path, lines)
		}
	}
	for room := range code {
		if len(comments[room]) != 1 {
			t.Errorf("%s: want one package comment, have %d %v", room, len(comments[room]), comments[room])
		}
	}
	comment.requireUsed(t)
}

func TestSizes(t *testing.T) {
	t.Parallel()
	long, functions := allow(longFiles), allow(longFunctions)
	for _, f := range files(t) {
		if f.generated() {
			continue
		}
		if n := strings.Count(f.text, "\n"); n > maxFileLines && !long.has(f.path) {
			t.Errorf("%s: %d lines, at most %d", f.path, n, maxFileLines)
		}
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && f.lines(fn) > maxFunctionLines && !functions.has(f.pkg.room()+"."+functionName(fn)) {
				t.Errorf("%s:%d: %s has %d lines, at most %d", f.path, f.line(fn), functionName(fn), f.lines(fn), maxFunctionLines)
			}
		}
	}
	long.requireUsed(t)
	functions.requireUsed(t)
}

func functionName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	receiver := fn.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	if name, ok := receiver.(*ast.Ident); ok {
		return name.Name + "." + fn.Name.Name
	}
	return fn.Name.Name
}

func TestInterfacesAreSmall(t *testing.T) {
	t.Parallel()
	wide := allow(wideInterfaces)
	for _, f := range files(t) {
		if f.generated() {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if i, ok := spec.Type.(*ast.InterfaceType); ok && i.Methods.NumFields() > maxMethods && !wide.has(f.pkg.room()+"."+spec.Name.Name) {
				t.Errorf("%s:%d: interface %s has %d methods, at most %d", f.path, f.line(spec), spec.Name.Name, i.Methods.NumFields(), maxMethods)
			}
			return true
		})
	}
	wide.requireUsed(t)
}

// selectors calls visit for every use of a name behind another, such as
// time.Sleep.
func (f file) selectors(visit func(n ast.Node, name string)) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok {
				visit(sel, x.Name+"."+sel.Sel.Name)
			}
		}
		return true
	})
}

func TestNothingSleepsSkipsOrHides(t *testing.T) {
	t.Parallel()
	slept, inits, clocks := allow(sleeps), allow(initFunctions), allow(clocksInScaling)
	unfinished := regexp.MustCompile(`\b(` + "TO" + "DO|FIX" + "ME|XX" + `X)\b`)
	for _, f := range files(t) {
		if f.generated() {
			continue
		}
		f.selectors(func(n ast.Node, name string) {
			switch {
			case name == "time.Sleep" && !slept.has(f.path):
				t.Errorf("%s:%d: time.Sleep: wait for a signal or poll a condition with a deadline", f.path, f.line(n))
			case f.test && (name == "t.Skip" || name == "t.Skipf" || name == "t.SkipNow" || name == "testing.Short"):
				t.Errorf("%s:%d: %s: a missing prerequisite fails", f.path, f.line(n), name)
			case name == "time.Now" && matches("scaling/**", f.pkg.room()) && !f.test && !clocks.has(f.path):
				t.Errorf("%s:%d: time.Now: in scaling, time is an argument", f.path, f.line(n))
			}
		})
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" && !inits.has(f.path) {
				t.Errorf("%s:%d: init: nothing registers itself", f.path, f.line(fn))
			}
		}
		for _, group := range f.ast.Comments {
			if unfinished.MatchString(group.Text()) {
				t.Errorf("%s:%d: left for someone else", f.path, f.line(group))
			}
			for _, c := range group.List {
				if strings.HasPrefix(c.Text, "//nolint") {
					t.Errorf("%s:%d: nolint: staticcheck, the only linter, does not read it (lint:ignore is its word)", f.path, f.line(c))
				}
			}
		}
	}
	slept.requireUsed(t)
	inits.requireUsed(t)
	clocks.requireUsed(t)
}
