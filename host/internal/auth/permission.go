package auth

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Resource is a kind of thing that permissions apply to.
type Resource string

// The resources.
const (
	Task     Resource = "task"
	Template Resource = "template"
	Queue    Resource = "queue"
	Worker   Resource = "worker"
	Plugin   Resource = "plugin"
	Config   Resource = "config"
	Host     Resource = "system"
	Token    Resource = "token"
)

// Resources lists all resources, in display order.
var Resources = []Resource{Task, Template, Queue, Worker, Plugin, Config, Host, Token}

// Level is how much may be done. Each level includes those before it.
type Level int

// The levels.
const (
	Nothing    Level = iota
	Read             // view
	Operate          // daily work: submit, cancel, retry
	Administer       // changes that affect everybody: templates, plugins, tokens
)

var levels = []string{Read: "read", Operate: "operate", Administer: "administer"}

// String returns the level's name.
func (l Level) String() string {
	if l <= Nothing || int(l) >= len(levels) {
		return "nothing"
	}
	return levels[l]
}

// Permission is a level on a resource.
type Permission struct {
	Resource Resource
	Level    Level
}

// String returns resource:level.
func (p Permission) String() string { return string(p.Resource) + ":" + p.Level.String() }

// Permissions is what a principal may do: the highest level on each resource.
type Permissions map[Resource]Level

// everything stands for all resources in the text of a permission.
const everything = "*"

// Everything returns the permission to do everything.
func Everything() Permissions {
	p := Permissions{}
	for _, r := range Resources {
		p[r] = Administer
	}
	return p
}

// ParsePermissions parses permissions such as task:operate or *:read.
func ParsePermissions(texts []string) (Permissions, error) {
	p := Permissions{}
	for _, text := range texts {
		if !p.add(text) {
			return nil, fmt.Errorf("%.60q is not a permission: want RESOURCE:LEVEL with a resource of %s or *, and a level of %s",
				text, resourceNames(), strings.Join(levels[Read:], ", "))
		}
	}
	return p, nil
}

// KnownPermissions parses the permissions among texts and ignores the rest, since claims
// of other issuers may contain scopes of other services.
func KnownPermissions(texts []string) Permissions {
	p := Permissions{}
	for _, text := range texts {
		p.add(text)
	}
	return p
}

func (p Permissions) add(text string) bool {
	name, level, _ := strings.Cut(text, ":")
	l := Level(slices.Index(levels, level))
	if l <= Nothing {
		return false
	}
	if name == everything {
		for _, r := range Resources {
			p[r] = max(p[r], l)
		}
		return true
	}
	if r := Resource(name); slices.Contains(Resources, r) {
		p[r] = max(p[r], l)
		return true
	}
	return false
}

func resourceNames() string {
	names := make([]string, len(Resources))
	for i, r := range Resources {
		names[i] = string(r)
	}
	return strings.Join(names, ", ")
}

// Allows reports whether the permissions include need.
func (p Permissions) Allows(need Permission) bool {
	return need.Level > Nothing && p[need.Resource] >= need.Level
}

// Within reports whether others allows everything that p does.
func (p Permissions) Within(others Permissions) bool {
	for r, l := range p {
		if others[r] < l {
			return false
		}
	}
	return true
}

// Strings returns the permissions as text, sorted.
func (p Permissions) Strings() []string {
	var texts []string
	for _, r := range slices.Sorted(maps.Keys(p)) {
		texts = append(texts, Permission{r, p[r]}.String())
	}
	return texts
}
