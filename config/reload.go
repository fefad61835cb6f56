package config

import (
	"fmt"
	"maps"
	"reflect"
)

// Change says what a running host does with a configuration that was read again.
type Change struct {
	// Config is the configuration to put in force: the old one with the new values of
	// keys that can be reloaded.
	Config *Config
	// Applied lists the keys whose values change now, Restart those that change at the
	// next start of the host.
	Applied, Restart []string
}

// Adopt says what a host with this configuration does with a new one. It fails if the new
// values conflict with those that only a restart changes: then nothing may be applied.
func (c *Config) Adopt(next *Config) (Change, error) {
	merged := *c
	merged.origins = maps.Clone(c.origins)
	merged.Warnings = next.Warnings
	change := Change{Config: &merged}
	from, into := reflect.ValueOf(next).Elem(), reflect.ValueOf(&merged).Elem()
	for _, leaf := range schemaOf(from.Type()).declared() {
		value, old := from.FieldByIndex(leaf.index), into.FieldByIndex(leaf.index)
		differs := value.Interface() != old.Interface()
		if !leaf.limits.reload {
			if differs {
				change.Restart = append(change.Restart, leaf.key)
			}
			continue
		}
		if differs {
			change.Applied = append(change.Applied, leaf.key)
		}
		old.Set(value)
		if origin, ok := next.origins[leaf.key]; ok {
			merged.origins[leaf.key] = origin
		}
	}
	if err := merged.Validate(); err != nil {
		return Change{}, fmt.Errorf("the new values conflict with values that only a restart changes: %w", err)
	}
	return change, nil
}

// LiveKeys returns the keys that a running host takes over, sorted.
func LiveKeys() []string {
	var live []string
	leaves := schemaOf(reflect.TypeFor[Config]())
	for _, key := range leaves.keys() {
		if leaves[key].limits.reload {
			live = append(live, key)
		}
	}
	return live
}
