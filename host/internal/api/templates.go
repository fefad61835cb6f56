package api

import (
	"bytes"
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

type templateInput struct {
	Source  string `query:"source" maxLength:"255" default:"template.yaml" doc:"What messages call the template, such as its file name."`
	RawBody []byte `contentType:"application/yaml"`
}

type applyOutput struct {
	Status   int
	Location string `header:"Location"`
	Body     readmodel.Template
}

type templateOutput struct{ Body readmodel.Template }

type listTemplatesInput struct {
	Namespace string `query:"namespace" maxLength:"63"`
	Name      string `query:"name" maxLength:"63"`
	Cursor    string `query:"cursor" maxLength:"400" doc:"next_cursor of the previous page."`
	Limit     int    `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

type listTemplatesOutput struct{ Body readmodel.TemplatePage }

type templatePath struct {
	Namespace string `path:"namespace" maxLength:"63"`
	Name      string `path:"name" maxLength:"63"`
	Version   string `path:"version" maxLength:"64" doc:"major.minor.patch, or latest."`
}

func (r *routes) templateRoutes() {
	register(r, huma.Operation{
		OperationID: "apply-template", Method: http.MethodPost, Path: "/v1/templates", Tags: []string{"templates"},
		Summary: "Store a template version",
		Description: "Answers 201, or 200 if the same version is already stored. A version never changes: different " +
			"content for a stored version is a conflict.",
		DefaultStatus: http.StatusCreated,
		Responses: map[string]*huma.Response{
			"200": {
				Description: "The version is already stored",
				Content:     map[string]*huma.MediaType{"application/json": {Schema: schemaOf[readmodel.Template](r.api)}},
			},
		},
	}, r.applyTemplate)
	register(r, huma.Operation{
		OperationID: "validate-template", Method: http.MethodPost, Path: "/v1/templates/validate", Tags: []string{"templates"},
		Summary: "Check a template and store nothing", DefaultStatus: http.StatusOK,
	}, r.validateTemplate)
	register(r, huma.Operation{
		OperationID: "list-templates", Method: http.MethodGet, Path: "/v1/templates", Tags: []string{"templates"},
		Summary: "List templates by namespace, name and version",
	}, r.listTemplates)
	register(r, huma.Operation{
		OperationID: "show-template", Method: http.MethodGet,
		Path: "/v1/templates/{namespace}/{name}/{version}", Tags: []string{"templates"},
		Summary: "Show one version of a template",
	}, r.showTemplate)
}

func (r *routes) applyTemplate(ctx context.Context, in *templateInput) (*applyOutput, error) {
	t, created, err := r.backend.Templates.ApplyTemplate(ctx, in.Source, bytes.Clone(in.RawBody))
	if err != nil {
		return nil, err
	}
	auth.SetSubject(ctx, "template "+t.Namespace+"/"+t.Name+"@"+t.Version)
	out := &applyOutput{
		Status:   http.StatusOK,
		Location: "/v1/templates/" + strings.Join([]string{t.Namespace, t.Name, t.Version}, "/"),
		Body:     t,
	}
	if created {
		out.Status = http.StatusCreated
	}
	return out, nil
}

func (r *routes) validateTemplate(ctx context.Context, in *templateInput) (*templateOutput, error) {
	t, err := r.backend.Templates.ValidateTemplate(ctx, in.Source, bytes.Clone(in.RawBody))
	if err != nil {
		return nil, err
	}
	return &templateOutput{Body: t}, nil
}

func (r *routes) listTemplates(ctx context.Context, in *listTemplatesInput) (*listTemplatesOutput, error) {
	q := TemplateQuery{Namespace: in.Namespace, Name: in.Name, Limit: in.Limit + 1}
	if in.Cursor != "" {
		key, err := decodeCursor("v", in.Cursor)
		if err != nil {
			return nil, err
		}
		parts := strings.Split(key, "/")
		if len(parts) != 3 {
			return nil, badCursor()
		}
		q.After = TemplateID{Namespace: parts[0], Name: parts[1], Version: parts[2]}
	}
	templates, err := r.backend.Templates.ListTemplates(ctx, q)
	if err != nil {
		return nil, err
	}
	items, more := trim(templates, in.Limit)
	out := &listTemplatesOutput{Body: readmodel.TemplatePage{Items: items}}
	if more {
		last := items[len(items)-1]
		out.Body.NextCursor = encodeCursor("v", strings.Join([]string{last.Namespace, last.Name, last.Version}, "/"))
	}
	return out, nil
}

func (r *routes) showTemplate(ctx context.Context, in *templatePath) (*templateOutput, error) {
	t, err := r.backend.Templates.Template(ctx, TemplateID(*in))
	if err != nil {
		return nil, err
	}
	return &templateOutput{Body: t}, nil
}
