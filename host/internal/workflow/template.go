package workflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/schema"
)

// Ranges of the values in a template.
const (
	MaxAttempts = 100
	MinPriority = math.MinInt16
	MaxPriority = math.MaxInt16
	MinTimeout  = time.Second
	MaxTimeout  = 24 * time.Hour
	MaxBackoff  = 7 * 24 * time.Hour // of retry.base and retry.cap
)

// form is what a name must look like.
type form struct {
	pattern *regexp.Regexp
	words   string
}

var (
	namespaceForm = form{
		regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`),
		"a namespace: 1 to 40 lower-case letters, digits and underscores, starting with a letter",
	}
	nameForm = form{
		regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`),
		"a name: 1 to 63 lower-case letters, digits and underscores, starting with a letter",
	}
	handlerForm = form{
		regexp.MustCompile(`^[a-z][a-z0-9_.\-]{0,127}$`),
		"the name of a handler: 1 to 128 lower-case letters, digits, dots, dashes and underscores, starting with a letter",
	}
	environmentForm = form{
		regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`),
		"the name of an environment: 1 to 32 lower-case letters, digits, dashes and underscores, starting with a letter",
	}
	versionForm = form{
		regexp.MustCompile(`^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(-[0-9A-Za-z][0-9A-Za-z.\-]{0,31})?$`),
		"a semantic version: write x.y.z, such as 1.0.0",
	}
)

// allSteps is the key in an environment's steps that stands for every step.
const allSteps = "ALL"

// Template is a valid template version, as returned by [ParseTemplate].
type Template struct {
	plans []Plan // the base plan first
}

// Plans returns the plans of the template: the base plan, then one for each environment
// in the order of the source. The caller owns them: they share no memory with the
// template or with each other.
func (t *Template) Plans() ([]Plan, error) {
	if len(t.plans) == 0 {
		return nil, errors.New("build plans: the template was not parsed")
	}
	plans := make([]Plan, len(t.plans))
	for i := range t.plans {
		plans[i] = t.plans[i].Clone()
	}
	return plans, nil
}

// ID returns namespace/name@version.
func (t *Template) ID() string {
	if len(t.plans) == 0 {
		return ""
	}
	p := &t.plans[0]
	return p.Namespace + "/" + p.Name + "@" + p.Version
}

// ParseTemplate reads the YAML of a template. file names the source in errors. All
// problems are reported together, as a [*TemplateError]: malformed YAML, unknown, missing
// and duplicate keys, wrong types and ranges, unknown and cyclic dependencies, schemas
// that do not compile, configurations that cannot be stored, anything beyond lim. For
// malformed YAML only the first fault is reported, because anything after it would be
// guesswork.
//
// Durations are Go durations (500ms, 1m30s) or numbers of seconds. Merge keys (<<),
// anchors and aliases work; tags do not. Scalars are read according to YAML 1.2; those
// that other readers interpret differently (010, 1_000) are rejected. Numbers in config
// and input_schema keep their digits.
func ParseTemplate(file string, src []byte, lim Limits) (*Template, error) {
	r := &reader{lim: lim.withDefaults()}
	if len(src) > r.lim.MaxSource {
		r.add(position{}, "", "the template has %d bytes, but the limit is %d", len(src), r.lim.MaxSource)
		return nil, r.err(file)
	}
	root := parseYAML(src, &r.problems)
	if root == nil {
		return nil, r.err(file)
	}
	b := &builder{reader: r}
	b.template(root)
	plans := b.build()
	if err := r.err(file); err != nil {
		return nil, err
	}
	return &Template{plans: plans}, nil
}

// source is a template as written.
type source struct {
	namespace, name, version, description string

	priority     int
	identity     IdentityPolicy
	schema       json.RawMessage
	defaults     patch
	steps        []stepSource
	stepsAt      position
	environments []environmentSource
}

type stepSource struct {
	position
	index   int
	path    string
	name    string
	parents []reference
	patch   patch
}

// parentPath returns where the step names a parent.
func (s *stepSource) parentPath(r reference) string {
	return fmt.Sprintf("steps[%d].depends_on[%d]", s.index, r.index)
}

// reference is a step's name where a step depends on it.
type reference struct {
	position
	name  string
	index int // in the list
}

type environmentSource struct {
	name     string
	priority *int
	patches  []patchOf // in the order of the source
}

// patchOf is what an environment says about one step, or about all.
type patchOf struct {
	position
	path  string
	name  string
	patch patch
}

// patch holds settings of a step that can be given in more than one place; nil means not
// given.
type patch struct {
	handler, description *string
	config               *node
	configJSON           json.RawMessage // of config alone
	retry                retryPatch
	timeout              *time.Duration
	priority             *int
	skippable            *bool
}

type retryPatch struct {
	position // of the base or cap, else of the mapping
	path     string

	retryable   *bool
	maxAttempts *int
	backoff     *BackoffKind
	base, limit *time.Duration
	jitter      *float64
}

// template reads the whole template.
func (b *builder) template(n *node) {
	var steps, environments *node
	b.fields(n, "", []field{
		{"namespace", true, func(n *node, path string) { b.src.namespace, _ = b.word(n, path, namespaceForm) }},
		{"name", true, func(n *node, path string) { b.src.name, _ = b.word(n, path, nameForm) }},
		{"version", true, b.version},
		{"description", false, func(n *node, path string) { b.src.description = b.description(n, path) }},
		{"priority", false, func(n *node, path string) { b.src.priority, _ = b.integer(n, path, MinPriority, MaxPriority) }},
		{"identity", false, func(n *node, path string) { b.src.identity, _ = choice(b, n, path, IdentityPolicies[:]) }},
		{"input_schema", false, b.schema},
		{"defaults", false, b.defaults},
		{"steps", true, func(n *node, _ string) { steps = n }},
		{"environments", false, func(n *node, _ string) { environments = n }},
	})
	if steps != nil {
		b.steps(steps, "steps")
	}
	if environments != nil {
		b.environments(environments, "environments")
	}
}

func (b *builder) version(n *node, path string) {
	if n.kind == scalarNode && !versionForm.pattern.MatchString(n.text) {
		b.add(n.position, path, "%q is not %s", shown(n.text), versionForm.words)
		return
	}
	b.src.version, _ = b.text(n, path)
}

func (b *builder) schema(n *node, path string) {
	_, raw := b.object(n, path)
	if raw == nil {
		return
	}
	if _, err := schema.Compile(raw); err != nil {
		b.addSchema(n, path, err)
		return
	}
	b.src.schema = raw
}

func (b *builder) defaults(n *node, path string) {
	p := &b.src.defaults
	b.fields(n, path, []field{b.retryField(&p.retry), b.timeoutField(&p.timeout)})
}

func (b *builder) steps(n *node, path string) {
	b.src.stepsAt = n.position
	switch {
	case n.kind != sequenceNode:
		b.add(n.position, path, "must be a list of steps: write '- name: …'")
		return
	case len(n.items) == 0:
		b.add(n.position, path, "is empty: a template needs at least one step")
		return
	case len(n.items) > b.lim.MaxSteps:
		b.add(n.position, path, "has %d steps, but the limit is %d: split the workflow", len(n.items), b.lim.MaxSteps)
		return
	}
	b.src.steps = make([]stepSource, len(n.items))
	for i, item := range n.items {
		b.src.steps[i].index = i
		b.step(&b.src.steps[i], item, fmt.Sprintf("%s[%d]", path, i))
	}
}

func (b *builder) step(s *stepSource, n *node, path string) {
	s.position, s.path = n.position, path
	fields := append([]field{
		{"name", true, func(n *node, path string) {
			s.position, s.path = n.position, path
			s.name, _ = b.word(n, path, nameForm)
		}},
		{"depends_on", false, func(n *node, path string) { s.parents = b.dependsOn(n, path) }},
	}, b.patchFields(&s.patch, true)...)
	b.fields(n, path, fields)
}

func (b *builder) dependsOn(n *node, path string) []reference {
	if n.kind != sequenceNode {
		b.add(n.position, path, "must be a list of step names: write [%s]", shown(n.text))
		return nil
	}
	if b.edges += len(n.items); b.edges > maxEdges {
		if b.edges-len(n.items) <= maxEdges {
			b.add(n.position, path, "the steps have more than %d dependencies in total: put a step in between", maxEdges)
		}
		return nil
	}
	out := make([]reference, 0, len(n.items))
	for i, item := range n.items {
		if item.isText() {
			out = append(out, reference{item.position, item.text, i})
			continue
		}
		b.text(item, fmt.Sprintf("%s[%d]", path, i)) // text reports what is wrong with it
	}
	return out
}

// patchFields returns the keys that a step and an override have in common.
func (b *builder) patchFields(p *patch, step bool) []field {
	return []field{
		{"handler", step, func(n *node, path string) {
			if s, ok := b.word(n, path, handlerForm); ok {
				p.handler = &s
			}
		}},
		{"description", false, func(n *node, path string) { p.description = new(b.description(n, path)) }},
		{"config", false, func(n *node, path string) { p.config, p.configJSON = b.object(n, path) }},
		b.retryField(&p.retry),
		b.timeoutField(&p.timeout),
		{"priority", false, func(n *node, path string) {
			if i, ok := b.integer(n, path, MinPriority, MaxPriority); ok {
				p.priority = &i
			}
		}},
		{"skippable", false, func(n *node, path string) { p.skippable = value(b.boolean(n, path)) }},
	}
}

func (b *builder) timeoutField(timeout **time.Duration) field {
	return field{"timeout", false, func(n *node, path string) {
		if d, ok := b.duration(n, path, MinTimeout, MaxTimeout, true); ok {
			*timeout = &d
		}
	}}
}

func (b *builder) retryField(p *retryPatch) field {
	return field{"retry", false, func(n *node, path string) {
		p.position, p.path = n.position, path
		b.fields(n, path, []field{
			{"retryable", false, func(n *node, path string) { p.retryable = value(b.boolean(n, path)) }},
			{"max_attempts", false, func(n *node, path string) { p.maxAttempts = value(b.integer(n, path, 1, MaxAttempts)) }},
			{"backoff", false, func(n *node, path string) { p.backoff = value(choice(b, n, path, Backoffs[:])) }},
			{"base", false, func(n *node, path string) {
				p.position, p.path = n.position, path
				p.base = value(b.duration(n, path, 0, MaxBackoff, false))
			}},
			{"cap", false, func(n *node, path string) {
				p.position, p.path = n.position, path
				p.limit = value(b.duration(n, path, 0, MaxBackoff, false))
			}},
			{"jitter", false, func(n *node, path string) { p.jitter = value(b.fraction(n, path)) }},
		})
	}}
}

// choice reads one of the given words.
func choice[T ~string](b *builder, n *node, path string, of []T) (T, bool) {
	names := make([]string, len(of))
	for i, k := range of {
		if names[i] = string(k); n.kind == scalarNode && n.text == names[i] {
			return k, true
		}
	}
	b.add(n.position, path, "must be one of %s, not %s%s", strings.Join(names, ", "), n.what(), suggest(n.text, names))
	return "", false
}

func (b *builder) environments(n *node, path string) {
	if n.kind != mappingNode {
		b.add(n.position, path, "must be a mapping from environment names to overrides")
		return
	}
	if len(n.pairs) > b.lim.MaxEnvironments {
		b.add(n.position, path, "has %d environments, but the limit is %d", len(n.pairs), b.lim.MaxEnvironments)
		return
	}
	for _, p := range n.pairs {
		at := join(path, p.key.text)
		name, ok := b.word(p.key, at, environmentForm)
		if !ok || !b.given(p, at) {
			continue
		}
		e := environmentSource{name: name}
		b.fields(p.value, at, []field{
			{"priority", false, func(n *node, path string) { e.priority = value(b.integer(n, path, MinPriority, MaxPriority)) }},
			{"steps", false, func(n *node, path string) { e.patches = b.patches(n, path) }},
		})
		b.src.environments = append(b.src.environments, e)
	}
}

func (b *builder) patches(n *node, path string) []patchOf {
	if n.kind != mappingNode {
		b.add(n.position, path, "must be a mapping from step names (or %s) to overrides", allSteps)
		return nil
	}
	out := make([]patchOf, len(n.pairs))
	for i, p := range n.pairs {
		at := join(path, p.key.text)
		out[i].position, out[i].path, out[i].name = p.key.position, at, p.key.text
		if b.given(p, at) {
			b.fields(p.value, at, b.patchFields(&out[i].patch, false))
		}
	}
	return out
}

// value returns a pointer to what was read, nil if nothing was.
func value[T any](v T, ok bool) *T {
	if !ok {
		return nil
	}
	return &v
}
