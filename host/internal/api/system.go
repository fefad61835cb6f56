package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

type pluginsOutput struct{ Body readmodel.PluginPage }

type doctorOutput struct{ Body readmodel.DoctorReport }

type healthOutput struct {
	Status int
	Body   readmodel.Health
}

type healthStatusOutput struct {
	Status int
	Body   readmodel.HealthReport
}

func (r *routes) systemRoutes() {
	register(r, huma.Operation{
		OperationID: "health-status", Method: http.MethodGet, Path: "/health/status", Tags: []string{"system"},
		Summary: "What the host's checks found when they last looked",
		Responses: map[string]*huma.Response{
			"503": {
				Description: "The host is not working, or it is unknown whether it is",
				Content:     map[string]*huma.MediaType{"application/json": {Schema: schemaOf[readmodel.HealthReport](r.api)}},
			},
		},
	}, r.healthStatus)
	register(r, huma.Operation{
		OperationID: "list-plugins", Method: http.MethodGet, Path: "/v1/plugins", Tags: []string{"system"},
		Summary: "List the plugins of this host and the handlers they serve",
	}, r.plugins)
	register(r, huma.Operation{
		OperationID: "doctor", Method: http.MethodGet, Path: "/v1/system/doctor", Tags: []string{"system"},
		Summary: "Diagnose the host and its database, and say how to fix what is wrong",
	}, r.doctor)
	r.probe("startup", "Whether the host has started", Health.Started)
	r.probe("live", "Whether the process is working", Health.Live)
	r.probe("ready", "Whether the host accepts work now", Health.Ready)
}

func (r *routes) plugins(ctx context.Context, _ *struct{}) (*pluginsOutput, error) {
	plugins, err := r.backend.System.Plugins(ctx)
	if err != nil {
		return nil, err
	}
	if plugins == nil {
		plugins = []readmodel.Plugin{}
	}
	return &pluginsOutput{Body: readmodel.PluginPage{Items: plugins, Problem: r.backend.PluginViews.PluginFault(ctx)}}, nil
}

func (r *routes) doctor(ctx context.Context, _ *struct{}) (*doctorOutput, error) {
	report, err := r.backend.System.Doctor(ctx)
	if err != nil {
		return nil, err
	}
	return &doctorOutput{Body: report}, nil
}

// healthStatus answers with what the checks found: 200 if the host works, even if
// degraded, else 503.
func (r *routes) healthStatus(ctx context.Context, _ *struct{}) (*healthStatusOutput, error) {
	report := r.backend.Health.HealthReport(ctx)
	out := &healthStatusOutput{Status: http.StatusOK, Body: report}
	if report.Status != "healthy" && report.Status != "degraded" {
		out.Status = http.StatusServiceUnavailable
	}
	return out, nil
}

// probe adds a health route: 200 if the answer is ok, else 503 with a body of the same
// shape, as probes expect.
func (r *routes) probe(name, summary string, ask func(Health, context.Context) readmodel.Health) {
	register(r, huma.Operation{
		OperationID: "health-" + name, Method: http.MethodGet, Path: "/health/" + name, Tags: []string{"system"},
		Summary: summary,
		Responses: map[string]*huma.Response{
			"503": {
				Description: "The answer is no",
				Content:     map[string]*huma.MediaType{"application/json": {Schema: schemaOf[readmodel.Health](r.api)}},
			},
		},
	}, func(ctx context.Context, _ *struct{}) (*healthOutput, error) {
		h := ask(r.backend.Health, ctx)
		out := &healthOutput{Status: http.StatusOK, Body: h}
		if h.Status != readmodel.HealthOK {
			out.Status = http.StatusServiceUnavailable
		}
		return out, nil
	})
}
