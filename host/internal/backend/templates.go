package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
)

// Latest is the version that stands for the highest one.
const Latest = "latest"

// compile reads a template's source and builds its plans.
func (b *Backend) compile(source string, src []byte) ([]workflow.Plan, error) {
	t, err := workflow.ParseTemplate(source, src, b.cfg.Load().Templates)
	if err != nil {
		return nil, templateFault(source, err)
	}
	plans, err := t.Plans()
	if err != nil {
		return nil, templateFault(source, err)
	}
	if namespace := plans[0].Namespace; slices.Contains(b.cfg.Load().Reserved, namespace) {
		return nil, templateFault(source, fmt.Errorf("namespace: the queue of %s would be one of the host's own: choose another namespace", namespace))
	}
	return plans, nil
}

// ApplyTemplate implements [api.Templates].
func (b *Backend) ApplyTemplate(ctx context.Context, source string, src []byte) (readmodel.Template, bool, error) {
	plans, err := b.compile(source, src)
	if err != nil {
		return readmodel.Template{}, false, err
	}
	id := api.TemplateID{Namespace: plans[0].Namespace, Name: plans[0].Name, Version: plans[0].Version}
	created, err := b.Store.ApplyTemplate(ctx, src, plans)
	if errors.Is(err, store.ErrTemplateDiffers) {
		return readmodel.Template{}, false, versionTaken(id)
	} else if err != nil {
		return readmodel.Template{}, false, inputFault(err)
	}
	if created {
		// The engine also looks by itself once in a while, so this need not succeed.
		_ = b.Engine.TemplatesChanged(ctx)
	}
	t, err := b.Template(ctx, id)
	return t, created, err
}

func versionTaken(id api.TemplateID) error {
	return api.Conflict(api.CodeTemplateExists,
		"template %s/%s has a version %s with different content; versions never change, so give this one a new number",
		id.Namespace, id.Name, id.Version)
}

// ValidateTemplate implements [api.Templates].
func (b *Backend) ValidateTemplate(ctx context.Context, source string, src []byte) (readmodel.Template, error) {
	plans, err := b.compile(source, src)
	if err != nil {
		return readmodel.Template{}, err
	}
	base := &plans[0]
	have, err := b.Store.ReadTemplate(ctx, base.Namespace, base.Name, base.Version)
	if err == nil && have.Source != string(src) {
		return readmodel.Template{}, versionTaken(api.TemplateID{Namespace: base.Namespace, Name: base.Name, Version: base.Version})
	} else if err != nil && !errors.Is(err, store.ErrNotFound) {
		return readmodel.Template{}, fault(err)
	}
	served, err := b.Store.ServedHandlers(ctx)
	if err != nil {
		return readmodel.Template{}, fault(err)
	}
	t := templateOf(base, served)
	var unserved []string
	for _, s := range t.Steps {
		if !s.Served {
			unserved = append(unserved, s.Handler)
		}
	}
	slices.Sort(unserved)
	t.Warnings = store.UnservedWarnings(slices.Compact(unserved))
	for i := range plans[1:] {
		t.Environments = append(t.Environments, plans[1+i].Environment)
	}
	slices.Sort(t.Environments)
	return t, nil
}

// ListTemplates implements [api.Templates].
func (b *Backend) ListTemplates(ctx context.Context, q api.TemplateQuery) ([]readmodel.TemplateSummary, error) {
	list, err := b.Store.ListTemplates(ctx, store.TemplateFilter{
		Namespace: q.Namespace, Name: q.Name,
		AfterNamespace: q.After.Namespace, AfterName: q.After.Name, AfterVersion: q.After.Version,
		Limit: q.Limit,
	})
	if err != nil {
		return nil, inputFault(err)
	}
	return list, nil
}

// Template implements [api.Templates].
func (b *Backend) Template(ctx context.Context, id api.TemplateID) (readmodel.Template, error) {
	stored, err := b.readTemplate(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		name := id.Namespace + "/" + id.Name
		if id.Version != Latest {
			name += " " + id.Version
		}
		return readmodel.Template{}, api.NotFound(api.CodeTemplateNotFound,
			"there is no template %s; see 'tasker template list'", name)
	} else if err != nil {
		return readmodel.Template{}, inputFault(err)
	}
	served, err := b.Store.ServedHandlers(ctx)
	if err != nil {
		return readmodel.Template{}, fault(err)
	}
	t := templateOf(&stored.Plan.Plan, served)
	t.Environments, t.Warnings = stored.Environments, store.UnservedWarnings(stored.Unserved)
	t.AppliedAt = &stored.AppliedAt
	return t, nil
}

func (b *Backend) readTemplate(ctx context.Context, id api.TemplateID) (*store.Template, error) {
	if id.Version == Latest {
		latest, err := b.Store.LatestVersion(ctx, id.Namespace, id.Name)
		if err != nil {
			return nil, err
		}
		id.Version = latest
	}
	return b.Store.ReadTemplate(ctx, id.Namespace, id.Name, id.Version)
}

func templateOf(p *workflow.Plan, served []string) readmodel.Template {
	t := readmodel.Template{
		Namespace: p.Namespace, Name: p.Name, Version: p.Version, Description: p.Description,
		Priority: p.Priority, Identity: string(p.Identity), InputSchema: p.InputSchema, Steps: make([]readmodel.TemplateStep, len(p.Steps)),
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		shown := readmodel.TemplateStep{
			Name: s.Name, Handler: s.Handler, Description: s.Description, Config: s.Config, Priority: s.Priority, Skippable: s.Skippable,
			Retry: readmodel.TemplateRetry{
				Retryable: s.Retry.Retryable, MaxAttempts: s.Retry.MaxAttempts, Backoff: string(s.Retry.Backoff),
				Base: s.Retry.Base.String(), Cap: s.Retry.Cap.String(), Jitter: asWritten(s.Retry.Jitter),
			},
			Served: slices.Contains(served, s.Handler),
		}
		for _, parent := range s.Parents {
			shown.DependsOn = append(shown.DependsOn, p.Steps[parent].Name)
		}
		if s.Timeout > 0 {
			shown.Timeout = s.Timeout.Round(time.Millisecond).String()
		}
		t.Steps[i] = shown
	}
	return t
}

// asWritten returns a number that the database keeps in 32 bits as the template has it:
// 0.1, not 0.10000000149011612.
func asWritten(x float64) float64 {
	short, err := strconv.ParseFloat(strconv.FormatFloat(x, 'g', -1, 32), 64)
	if err != nil {
		return x
	}
	return short
}
