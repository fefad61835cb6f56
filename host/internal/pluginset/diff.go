package pluginset

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Compare reports how the plugins of environments differ: which ones there are,
// their binaries, versions, settings and options. References to secrets are
// shown as references.
func Compare(path string, environments []string) (readmodel.PluginDiff, error) {
	diff := readmodel.PluginDiff{Environments: environments, Differences: []readmodel.PluginDifference{}}
	facts := make([]map[[2]string]string, len(environments)) // by slot and field
	for i, env := range environments {
		sel, err := NewSelector(path, env).Select()
		if err != nil {
			return diff, err
		}
		lock, err := loadLock(sel.Plugins.Path)
		if err != nil {
			return diff, err
		}
		if facts[i], err = factsOf(sel, lock); err != nil {
			return diff, err
		}
	}
	keys := map[[2]string]bool{}
	for _, f := range facts {
		for key := range f {
			keys[key] = true
		}
	}
	missing := map[string]bool{} // slots that one environment lacks: one row is enough
	ordered := slices.SortedFunc(maps.Keys(keys), func(a, b [2]string) int {
		rank := func(k [2]string) int { return boolInt(k[1] != fieldPlugin) }
		return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(rank(a), rank(b)), cmp.Compare(a[1], b[1]))
	})
	for _, key := range ordered {
		values := make([]string, len(facts))
		same := true
		for i, f := range facts {
			values[i] = f[key]
			same = same && values[i] == values[0]
		}
		if same || missing[key[0]] {
			continue
		}
		missing[key[0]] = key[1] == fieldPlugin
		diff.Differences = append(diff.Differences, readmodel.PluginDifference{Slot: key[0], Field: key[1], Values: values})
	}
	return diff, nil
}

const fieldPlugin = "plugin" // whether there is one

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// factsOf lists everything that can differ, by slot and field.
func factsOf(sel *Selection, lock *config.Lock) (map[[2]string]string, error) {
	facts := map[[2]string]string{
		{"", "lock.required"}: fmt.Sprint(sel.Plugins.Lock.Required),
		{"", "trust.keys"}:    strings.Join(sel.Plugins.Trust.Keys, ", "),
	}
	for i := range sel.Slots {
		s := &sel.Slots[i]
		put := func(field, value string) { facts[[2]string{s.Slot(), field}] = value }
		put(fieldPlugin, "yes")
		put("sha256", s.File.SHA256)
		if s.File.SHA256 == "" {
			put("sha256", "unknown: "+s.Err.Error())
		}
		put("sha256 (locked)", s.Locked)
		if lock != nil {
			locked, _ := lock.Plugin(sel.Plugins.Environment, s.Kind, s.Name)
			put("version (locked)", locked.Version)
		}
		for name, value := range s.Values() {
			if name != "sha256" {
				put(name, value)
			}
		}
		put("env", strings.Join(s.Env, ", "))
		var options map[string]any
		numbers := json.NewDecoder(bytes.NewReader(s.Options))
		numbers.UseNumber()
		if err := numbers.Decode(&options); err != nil {
			return nil, fmt.Errorf("read options of %s: %w", s.Slot(), err)
		}
		flatten("options", options, put)
	}
	return facts, nil
}

// flatten lists the leaves of options by their path. A reference to a secret is
// a leaf, because its table has one key.
func flatten(path string, value any, put func(field, value string)) {
	if table, ok := value.(map[string]any); ok && len(table) > 0 {
		for key, item := range table {
			flatten(path+"."+key, item, put)
		}
		return
	}
	text, err := json.Marshal(value)
	if err != nil {
		return // it came from JSON
	}
	if string(text) != "{}" {
		put(path, string(text))
	}
}
