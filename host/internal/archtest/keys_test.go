package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
)

const configPackage = modulePath + "/config"

// proof says which test fails if a key stops to act.
type proof struct {
	in   string // the room of the package
	test string // its test function
	word string // what of the key the function, or what it uses of its package's tests, says
}

// byConfigAlone are keys that act without being read outside of package config.
var byConfigAlone = map[string]string{
	"database.url_file":                "is read when the configuration is loaded, into database.url",
	"telemetry.traces.headers_file":    "is read when the configuration is loaded, into telemetry.traces.headers",
	"auth.tls.by_proxy":                "lifts a refusal of the validation",
	"orchestration.supervisor_timeout": "bounds two other keys in the validation",
}

// Every key is read by the code of a part, and a test proves that it acts. A key
// that is added needs a proof; one that loses its last reader is a lie to whoever
// sets it.
func TestEveryKeyActs(t *testing.T) {
	t.Parallel()
	read := keysRead(t)
	tests := testBodies(t)
	alone := allow(byConfigAlone)
	seen := map[string]bool{}
	for _, root := range []struct {
		prefix string
		typ    reflect.Type
	}{
		{"", reflect.TypeFor[config.Config]()},
		{"plugin.", reflect.TypeFor[config.PluginSettings]()},
		{"plugins.", reflect.TypeFor[config.PluginPolicy]()},
	} {
		for key, field := range keysOf(root.typ, root.prefix) {
			seen[key] = true
			if !read[field] {
				require.True(t, alone.has(key), "%s: no code outside of config reads %s", key, field)
			}
			all := proofs[key]
			require.NotEmpty(t, all, "%s has no proof: add the test that fails if it stops to act", key)
			for _, p := range all {
				body, ok := tests[p.in+" "+p.test]
				require.True(t, ok, "%s: there is no test %s in %s", key, p.test, p.in)
				require.True(t, strings.Contains(body, p.word), "%s: %s in %s does not say %q", key, p.test, p.in, p.word)
			}
		}
	}
	for key := range proofs {
		require.True(t, seen[key], "%s has proofs and is no key", key)
	}
	alone.requireUsed(t)
}

// keysOf returns the keys that a struct declares, with the fields they are.
func keysOf(typ reflect.Type, prefix string) map[string]string {
	keys := map[string]string{}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name := f.Tag.Get("toml")
		switch {
		case name == "" || name == "-":
		case f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[config.Secret]():
			maps.Copy(keys, keysOf(f.Type, prefix+name+"."))
		default:
			keys[prefix+name] = typ.Name() + "." + f.Name
		}
	}
	return keys
}

// testBodies returns the text of every test function, by room and name, with the
// package-level declarations of its package's tests that it uses.
func testBodies(t *testing.T) map[string]string {
	t.Helper()
	type declaration struct {
		text string
		uses []string
	}
	declared := map[string]map[string]declaration{} // by room and name
	for _, f := range files(t) {
		if !f.test {
			continue
		}
		room := f.pkg.room()
		if declared[room] == nil {
			declared[room] = map[string]declaration{}
		}
		for _, d := range f.ast.Decls {
			made := declaration{text: f.text[f.set.Position(d.Pos()).Offset:f.set.Position(d.End()).Offset]}
			ast.Inspect(d, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					made.uses = append(made.uses, id.Name)
				}
				return true
			})
			for _, name := range declaredNames(d) {
				declared[room][name] = made
			}
		}
	}
	bodies := map[string]string{}
	for room, all := range declared {
		for name := range all {
			if !strings.HasPrefix(name, "Test") {
				continue
			}
			var text strings.Builder
			seen := map[string]bool{name: true}
			for next := []string{name}; len(next) > 0; next = next[1:] {
				d := all[next[0]]
				text.WriteString(d.text + "\n")
				for _, used := range d.uses {
					if _, ours := all[used]; ours && !seen[used] {
						seen[used] = true
						next = append(next, used)
					}
				}
			}
			bodies[room+" "+name] = text.String()
		}
	}
	return bodies
}

func declaredNames(d ast.Decl) []string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			return []string{d.Name.Name}
		}
	case *ast.GenDecl:
		var names []string
		for _, s := range d.Specs {
			if v, ok := s.(*ast.ValueSpec); ok {
				for _, n := range v.Names {
					names = append(names, n.Name)
				}
			}
		}
		return names
	}
	return nil
}

// keysRead returns the fields of config's structs, as Struct.Field, that code
// outside of config reads, itself or through a method of theirs.
func keysRead(t *testing.T) map[string]bool {
	t.Helper()
	imports := exported(t)
	read, methods := map[string]bool{}, map[string]bool{}
	for _, p := range packages(t) {
		if p.ImportPath == configPackage || !slices.Contains(p.Imports, configPackage) {
			continue
		}
		_, info := check(t, p, imports)
		for sel, s := range info.Selections {
			switch owner := ownerOf(s); {
			case s.Obj().Pkg() == nil || s.Obj().Pkg().Path() != configPackage:
			case s.Kind() == types.FieldVal && !info.written[sel]:
				read[owner+"."+s.Obj().Name()] = true
			case s.Kind() == types.MethodVal && owner != "Config":
				methods[owner+"."+s.Obj().Name()] = true
			}
		}
	}
	for method, fields := range readByMethods(t, imports) {
		if methods[method] {
			maps.Copy(read, fields)
		}
	}
	require.NotEmpty(t, read)
	return read
}

// checked is what is known of a package's expressions.
type checked struct {
	types.Info

	files   []*ast.File
	written map[*ast.SelectorExpr]bool // what is assigned to
}

// check finds out what the names in a package's code mean.
func check(t *testing.T, p pkg, imports types.Importer) (*types.Package, *checked) {
	t.Helper()
	set := token.NewFileSet()
	c := &checked{Info: types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}, written: map[*ast.SelectorExpr]bool{}}
	code, _ := p.sources()
	for _, path := range code {
		c.files = append(c.files, parseFile(t, set, path))
	}
	for _, f := range c.files {
		ast.Inspect(f, func(n ast.Node) bool {
			if a, ok := n.(*ast.AssignStmt); ok && a.Tok == token.ASSIGN {
				for _, left := range a.Lhs {
					if sel, ok := left.(*ast.SelectorExpr); ok {
						c.written[sel] = true
					}
				}
			}
			return true
		})
	}
	conf := types.Config{Importer: imports}
	checked, err := conf.Check(p.ImportPath, set, c.files, &c.Info)
	require.NoError(t, err)
	return checked, c
}

// ownerOf names the struct that declares what is selected.
func ownerOf(s *types.Selection) string {
	typ := s.Recv()
	for _, i := range s.Index()[:len(s.Index())-1] { // through what is embedded
		typ = structOf(typ).Field(i).Type()
	}
	if p, ok := types.Unalias(typ).(*types.Pointer); ok {
		typ = p.Elem()
	}
	if n, ok := types.Unalias(typ).(*types.Named); ok {
		return n.Obj().Name()
	}
	return ""
}

func structOf(typ types.Type) *types.Struct {
	if p, ok := typ.Underlying().(*types.Pointer); ok {
		typ = p.Elem()
	}
	return typ.Underlying().(*types.Struct)
}

// readByMethods returns the fields that methods of config read, themselves or
// through others.
func readByMethods(t *testing.T, imports types.Importer) map[string]map[string]bool {
	t.Helper()
	at := slices.IndexFunc(packages(t), func(p pkg) bool { return p.ImportPath == configPackage })
	_, info := check(t, packages(t)[at], imports)
	fields, calls := map[string]map[string]bool{}, map[string][]string{}
	for _, f := range info.files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			name := strings.TrimPrefix(functionName(fn), "*")
			fields[name] = map[string]bool{}
			ast.Inspect(fn, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok || info.Selections[sel] == nil {
					return true
				}
				s := info.Selections[sel]
				if what := ownerOf(s) + "." + s.Obj().Name(); s.Kind() == types.FieldVal {
					fields[name][what] = true
				} else {
					calls[name] = append(calls[name], what)
				}
				return true
			})
		}
	}
	for range len(fields) { // as deep as a chain of calls can be
		for name, others := range calls {
			for _, other := range others {
				maps.Copy(fields[name], fields[other])
			}
		}
	}
	return fields
}

// exported imports packages by what the compiler wrote of them.
func exported(t *testing.T) types.Importer {
	t.Helper()
	root, err := moduleRootOnce()
	require.NoError(t, err)
	args := []string{"list", "-export", "-deps", "-json=ImportPath,Export", configPackage}
	for _, p := range packages(t) {
		if slices.Contains(p.Imports, configPackage) {
			args = append(args, p.ImportPath)
		}
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	require.NoError(t, err)
	at := map[string]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath, Export string }
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		at[p.ImportPath] = p.Export
	}
	return importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(at[path])
	})
}

func parseFile(t *testing.T, set *token.FileSet, path string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	return f
}
