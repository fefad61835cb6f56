package apitest

import (
	"cmp"
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// ApplyTemplate implements api.Templates. A template is one line, namespace/name@version;
// a line that starts with "bad" has two faults. A second line is the description, or
// "identity: POLICY".
func (b *Backend) ApplyTemplate(ctx context.Context, source string, src []byte) (readmodel.Template, bool, error) {
	t, err := b.ValidateTemplate(ctx, source, src)
	if err != nil {
		return readmodel.Template{}, false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, exists := b.templates[idOf(t)]
	if exists && old.Description != t.Description {
		return readmodel.Template{}, false, api.Conflict(api.CodeTemplateExists,
			"%s/%s %s exists with other content; raise the version", t.Namespace, t.Name, t.Version)
	}
	t.AppliedAt = b.now()
	b.templates[idOf(t)] = t
	return t, !exists, nil
}

// ValidateTemplate implements api.Templates.
func (b *Backend) ValidateTemplate(_ context.Context, source string, src []byte) (readmodel.Template, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return readmodel.Template{}, b.fail
	}
	line, description, _ := strings.Cut(strings.TrimSpace(string(src)), "\n")
	namespace, rest, ok1 := strings.Cut(line, "/")
	name, version, ok2 := strings.Cut(rest, "@")
	if !ok1 || !ok2 {
		base := filepath.Base(source)
		return readmodel.Template{}, api.Invalid(api.CodeTemplateInvalid, "the template has 2 problems",
			api.Issue{Location: base + ":3:7", Detail: `unknown key "stepz"; did you mean "steps"?`},
			api.Issue{Location: base + ":9:3", Detail: "cycle: a → b → a"})
	}
	t := b.template(api.TemplateID{Namespace: namespace, Name: name, Version: version})
	t.Description = description
	if policy, ok := strings.CutPrefix(description, "identity: "); ok {
		t.Identity, t.Description = policy, ""
	}
	t.Warnings = []string{"no plugin serves handler math.square"}
	return t, nil
}

func (b *Backend) template(id api.TemplateID) readmodel.Template {
	t := readmodel.Template{Namespace: id.Namespace, Name: id.Name, Version: id.Version, Identity: "allow"}
	for i, name := range stepNames {
		s := readmodel.TemplateStep{
			Name: name, Handler: "math.square", Timeout: "30s", Served: true,
			Retry: readmodel.TemplateRetry{Retryable: true, MaxAttempts: 3, Backoff: "exponential", Base: "1s", Cap: "30s", Jitter: 0.1},
		}
		if i > 0 {
			s.DependsOn = []string{stepNames[i-1]}
		}
		t.Steps = append(t.Steps, s)
	}
	return t
}

func idOf(t readmodel.Template) api.TemplateID {
	return api.TemplateID{Namespace: t.Namespace, Name: t.Name, Version: t.Version}
}

// ListTemplates implements api.Templates.
func (b *Backend) ListTemplates(_ context.Context, q api.TemplateQuery) ([]readmodel.TemplateSummary, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return nil, b.fail
	}
	byID := func(x, y api.TemplateID) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name), cmp.Compare(x.Version, y.Version))
	}
	var out []readmodel.TemplateSummary
	for _, id := range slices.SortedFunc(maps.Keys(b.templates), byID) {
		t := b.templates[id]
		if byID(id, q.After) > 0 && (q.Namespace == "" || q.Namespace == id.Namespace) && (q.Name == "" || q.Name == id.Name) {
			out = append(out, readmodel.TemplateSummary{
				Namespace: t.Namespace, Name: t.Name, Version: t.Version, Description: t.Description,
				Steps: len(t.Steps), AppliedAt: t.AppliedAt, Warnings: t.Warnings,
			})
		}
	}
	return out[:min(len(out), q.Limit)], nil
}

// Template implements api.Templates.
func (b *Backend) Template(_ context.Context, id api.TemplateID) (readmodel.Template, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return readmodel.Template{}, b.fail
	}
	if id.Version == "latest" {
		id.Version = "1.0.0"
	}
	t, ok := b.templates[id]
	if !ok {
		return readmodel.Template{}, api.NotFound(api.CodeTemplateNotFound, "there is no template %s/%s %s", id.Namespace, id.Name, id.Version)
	}
	return t, nil
}

// Plugins implements api.System.
func (b *Backend) Plugins(context.Context) ([]readmodel.Plugin, error) {
	return []readmodel.Plugin{{
		Kind: "handler", Name: "math", Version: "1.0.0", Generation: 7, PID: 4242, State: "serving",
		StartedAt: &Epoch, Handlers: []readmodel.Handler{{Name: "math.square"}}, Limits: "memory 512 MiB, 64 processes (memory is watched; not enforced: max_processes)",
	}}, nil
}

// Doctor implements api.System.
func (b *Backend) Doctor(context.Context) (readmodel.DoctorReport, error) {
	return readmodel.NewDoctorReport(
		readmodel.DoctorCheck{Name: "database", Status: readmodel.DoctorOK, Message: "PostgreSQL 15.18 answers in 1 ms"},
		readmodel.DoctorCheck{
			Name: "handlers", Status: readmodel.DoctorWarn, Message: "no plugin serves handler math.cube",
			Fix: "add a plugin that serves it to plugins.toml",
		},
	), nil
}

// Started implements api.Health.
func (b *Backend) Started(context.Context) readmodel.Health {
	return readmodel.Health{Status: readmodel.HealthOK, State: "normal"}
}

// HealthReport implements api.Health.
func (b *Backend) HealthReport(context.Context) readmodel.HealthReport {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := readmodel.HealthReport{
		Status: "healthy", State: "normal", At: &Epoch,
		Items: []readmodel.HealthItem{
			{Name: "database", Status: "healthy", Since: Epoch},
			{Name: "plugins/math", Status: "healthy", Since: Epoch},
		},
		Events: []readmodel.HealthEvent{},
	}
	if b.fail != nil {
		r.Status = "unhealthy"
		r.Items[0] = readmodel.HealthItem{Name: "database", Status: "unhealthy", Message: "it has not answered a heartbeat for 25s", Since: Epoch}
		r.Events = []readmodel.HealthEvent{{
			At: Epoch, Check: "database", From: "healthy", To: "unhealthy", Severity: "critical", State: "normal", Message: r.Items[0].Message,
		}}
	}
	return r
}

// Live implements api.Health.
func (b *Backend) Live(context.Context) readmodel.Health {
	return readmodel.Health{Status: readmodel.HealthOK, State: "normal"}
}

// Ready implements api.Health.
func (b *Backend) Ready(context.Context) readmodel.Health {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return readmodel.Health{
			Status: readmodel.HealthUnavailable, State: "startup",
			Checks: []readmodel.HealthCheck{{Name: "database", OK: false, Message: "it does not answer"}},
		}
	}
	return readmodel.Health{Status: readmodel.HealthOK, State: "normal"}
}
