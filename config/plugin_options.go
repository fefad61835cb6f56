package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The keys of a reference to a secret: instead of a value, options contain a table with
// one of them.
const (
	fromEnv  = "from_env"  // the name of an environment variable of the host
	fromFile = "from_file" // the path of a file; one trailing line end is removed
)

// maxSecret bounds a file that contains a secret.
const maxSecret = 64 << 10

// option stores one key of options; path starts at the table.
func (r *pluginReader) option(into settings, path []string, e entry, origin Origin) {
	if len(path) == 0 {
		if !e.table {
			r.problems.add(origin, strings.Join(e.path, "."), "want a table, got %s", describe(e.value))
		}
		return
	}
	at := into.options
	for _, part := range path[:len(path)-1] {
		next, ok := at[part].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[part] = next
		}
		at = next
	}
	last := path[len(path)-1]
	into.origins[pointer(path)] = origin
	if !e.table {
		at[last] = e.value
	} else if _, ok := at[last].(map[string]any); !ok {
		at[last] = map[string]any{}
	}
}

// pointer is the JSON pointer of a path.
func pointer(path []string) string {
	var p strings.Builder
	for _, part := range path {
		p.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(part))
	}
	return p.String()
}

// mergeTables returns base overlaid with over: tables are merged, everything else is
// replaced. A reference to a secret is a value, so it is not merged with anything.
func mergeTables(base, over map[string]any) map[string]any {
	merged := maps.Clone(base)
	for key, value := range over {
		above, isTable := value.(map[string]any)
		under, wasTable := merged[key].(map[string]any)
		if isTable && wasTable && !isReference(above) && !isReference(under) {
			value = mergeTables(under, above)
		}
		merged[key] = value
	}
	return merged
}

func isReference(table map[string]any) bool {
	_, env := table[fromEnv]
	_, file := table[fromFile]
	return env || file
}

// encode checks the references in options, makes the paths in them absolute,
// and returns the options as JSON.
func (r *pluginReader) encode(options map[string]any, s *PluginSpec, key string) json.RawMessage {
	checked := replaceReferences(options, nil, func(ref map[string]any, path []string) any {
		if problem := checkReference(ref); problem != "" {
			r.problems.add(s.OptionOrigin(pointer(path)), key+".options."+strings.Join(path, "."), "%s", problem)
			return nil
		}
		if file, ok := ref[fromFile].(string); ok && !filepath.IsAbs(file) {
			return map[string]any{fromFile: filepath.Join(r.root, file)}
		}
		return ref
	})
	encoded, err := json.Marshal(checked)
	if err != nil {
		r.problems.add(s.Origin, key+".options", "cannot be converted to JSON: %v", err)
	}
	return encoded
}

func checkReference(ref map[string]any) string {
	name, isEnv := ref[fromEnv]
	if len(ref) != 1 {
		return "a reference to a secret has exactly one key, " + fromEnv + " or " + fromFile + ""
	}
	if !isEnv {
		if file, ok := ref[fromFile].(string); !ok || file == "" {
			return fromFile + ": want the path of a file"
		}
		return ""
	}
	if text, ok := name.(string); !ok || !variableName.MatchString(text) {
		return fmt.Sprintf("%s: %.40q is not the name of an environment variable", fromEnv, fmt.Sprint(name))
	}
	return ""
}

// replaceReferences returns a copy of options with every reference replaced.
func replaceReferences(value any, path []string, exchange func(ref map[string]any, path []string) any) any {
	deeper := func(part string, v any) any {
		return replaceReferences(v, append(slices.Clone(path), part), exchange)
	}
	switch v := value.(type) {
	case map[string]any:
		if len(path) > 0 && isReference(v) {
			return exchange(v, path)
		}
		out := make(map[string]any, len(v))
		for key, item := range v {
			out[key] = deeper(key, item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = deeper(strconv.Itoa(i), item)
		}
		return out
	default:
		return value
	}
}

// OptionOrigin returns where plugins.toml sets the option at a JSON pointer, or the
// nearest one that contains it, or the plugin itself.
func (s *PluginSpec) OptionOrigin(pointer string) Origin {
	for at := pointer; at != ""; at = at[:strings.LastIndexByte(at, '/')] {
		if origin, ok := s.options[at]; ok {
			return origin
		}
		if !strings.HasPrefix(at, "/") {
			break
		}
	}
	return s.Origin
}

// OptionProblem is a fault that the plugin or its schema found in an option. It names
// the place in plugins.toml.
func (s *PluginSpec) OptionProblem(pointer, message string) Problem {
	origin := s.OptionOrigin(pointer)
	key := "plugin." + s.Kind + "." + s.Name + ".options"
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if part != "" {
			key += "." + strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		}
	}
	return Problem{Source: origin.Source, Line: origin.Line, Key: key, Message: message}
}

// ResolveOptions returns the options with references replaced by secrets, and the
// secrets. The caller must pass them only to the plugin. getenv is os.LookupEnv.
func (s *PluginSpec) ResolveOptions(getenv func(string) (string, bool)) (resolved json.RawMessage, secrets []string, err error) {
	if !bytes.Contains(s.Options, []byte(`"from_`)) {
		return s.Options, nil, nil // nothing to replace: the bytes stay as they are
	}
	var options any
	dec := json.NewDecoder(bytes.NewReader(s.Options))
	dec.UseNumber()
	if err := dec.Decode(&options); err != nil {
		return nil, nil, fmt.Errorf("read options of %s: %w", s.Slot(), err)
	}
	var ps problems
	whole := replaceReferences(options, nil, func(ref map[string]any, path []string) any {
		secret, err := readSecret(ref, getenv)
		if err != nil {
			ps = append(ps, s.OptionProblem(pointer(path), err.Error()))
		}
		secrets = append(secrets, secret)
		return secret
	})
	if err := ps.err(); err != nil {
		return nil, nil, err
	}
	if resolved, err = json.Marshal(whole); err != nil {
		return nil, nil, fmt.Errorf("encode options of %s: %w", s.Slot(), err)
	}
	return resolved, secrets, nil
}

func readSecret(ref map[string]any, getenv func(string) (string, bool)) (string, error) {
	if name, ok := ref[fromEnv].(string); ok {
		value, set := getenv(name)
		switch {
		case !set:
			return "", fmt.Errorf("the environment variable %s is not set", name)
		case value == "":
			return "", fmt.Errorf("the environment variable %s is empty", name)
		}
		return value, nil
	}
	path, _ := ref[fromFile].(string)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("file %s does not exist", path)
	case err != nil:
		return "", err
	case !info.Mode().IsRegular() || info.Size() > maxSecret:
		return "", fmt.Errorf("%s is not a file of at most %d KiB", path, maxSecret>>10)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if secret == "" {
		return "", fmt.Errorf("the file %s is empty", path)
	}
	return secret, nil
}
