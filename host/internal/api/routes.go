package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Backend is what the API serves. The parts may be the same object.
type Backend struct {
	Tasks     Tasks
	Details   TaskDetails
	Templates Templates
	Repair    Repair
	Letters   Letters
	Explain   Explain
	Fleet     Fleet
	System    System
	Health    Health
	Tokens    Tokens
	Audit     Audit
	Events    Events
	Operation Operation
	Breakers  Breakers

	Configuration Configuration
	PluginViews   PluginViews
	PluginChanges PluginChanges
	Pools         Pools
	PoolRecords   PoolRecords
}

const bodySlack = 64 << 10 // bytes that a request may have besides its payload

// routes registers operations on one huma API.
type routes struct {
	api     huma.API
	backend Backend
	log     hclog.Logger
	limits  payload.Limits // of a context
	wrapped payload.Limits // of a body, which wraps its payload in one level
	limit   int64          // bytes of a body
	streams *streams

	eventTimeout time.Duration // for a client to receive an event
	bodyTimeout  time.Duration
	bulks        atomic.Int64 // bulk submissions in progress
}

func newRoutes(mux *http.ServeMux, b Backend, cfg Config, log hclog.Logger, streams *streams) *routes {
	c := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:   "Tasker Host",
				Version: apiVersion,
				Description: "Submit and watch tasks, manage templates. " +
					"Every error is a problem (RFC 9457) with a stable code. Lists are paginated.",
			},
		},
		Formats:                      map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{transform},
	}
	r := &routes{
		api: humago.New(mux, c), backend: b, log: log, streams: streams,
		limits: payload.Limits{MaxBytes: int(cfg.MaxPayload), MaxDepth: cfg.MaxDepth},
		limit:  cfg.MaxPayload + bodySlack, bodyTimeout: cfg.BodyTimeout,

		eventTimeout: cfg.EventTimeout,
	}
	r.wrapped = payload.Limits{MaxBytes: int(r.limit), MaxDepth: cfg.MaxDepth + 1}
	if cfg.Tracer != nil {
		r.api.UseMiddleware(traced(cfg.Tracer))
	}
	r.api.UseMiddleware(parameterGate)
	r.api.UseMiddleware(bodyGate(r.wrapped, cfg.BodyTimeout))
	r.taskRoutes()
	r.bulkRoute()
	r.detailRoutes()
	r.repairRoutes()
	r.letterRoutes()
	r.explainRoutes()
	r.fleetRoutes()
	r.poolRoutes()
	r.templateRoutes()
	r.systemRoutes()
	r.pluginRoutes()
	r.configurationRoutes()
	r.controlRoutes()
	r.accessRoutes()
	r.streamRoutes()
	describeAnswers(r.api.OpenAPI().Components.Schemas.Map())
	describeAccess(r.api.OpenAPI())
	return r
}

// register adds an operation whose errors are problems.
func register[I, O any](r *routes, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	op.MaxBodyBytes = r.limit + 1 // bodyGate has read and bounded the body
	op.BodyReadTimeout = time.Minute
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["default"] = r.problemResponse()
	huma.Register(r.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, r.problem(ctx, op.OperationID, err)
		}
		return out, nil
	})
}

// problem translates an error of a handler, and logs what the client does not get to see.
func (r *routes) problem(ctx context.Context, operation string, err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	p := problemOf(err)
	switch {
	case p.Status == http.StatusInternalServerError:
		r.log.Error("request failed", "operation", operation, "request", requestID(ctx), "error", err)
	case p.Status > http.StatusInternalServerError && ctx.Err() == nil:
		r.log.Warn("request not served", "operation", operation, "request", requestID(ctx), "error", err)
	}
	return p
}

func (r *routes) problemResponse() *huma.Response {
	return &huma.Response{
		Description: "A problem",
		Content: map[string]*huma.MediaType{
			problemType: {Schema: schemaOf[readmodel.Problem](r.api)},
		},
	}
}

func schemaOf[T any](api huma.API) *huma.Schema {
	return api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
}

// describeAnswers corrects the generated schemas of our answers: answers may gain fields,
// and a missing value is an absent field, never null. Schemas of requests, whose names end
// in Request, stay strict.
func describeAnswers(schemas map[string]*huma.Schema) {
	delete(schemas, "ErrorModel") // huma's own error shape, which is never returned
	delete(schemas, "ErrorDetail")
	for name, s := range schemas {
		if strings.HasSuffix(name, "Request") {
			continue
		}
		s.AdditionalProperties = nil
		for _, p := range s.Properties {
			p.Nullable = false
		}
	}
}
