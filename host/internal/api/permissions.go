package api

import (
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/auth"
)

// rule says who may use a route, and whether its use is recorded in the audit log.
type rule struct {
	need   auth.Permission
	public bool // anybody, without a token
	kept   bool // what it changes is recorded where it changed, so the audit log need not repeat it
}

func needs(r auth.Resource, l auth.Level) rule {
	return rule{need: auth.Permission{Resource: r, Level: l}}
}

// recorded is the rule for a route whose use needs no audit entry.
func recorded(r auth.Resource, l auth.Level) rule {
	rule := needs(r, l)
	rule.kept = true
	return rule
}

var public = rule{public: true}

// permissions is the table of routes, by method and path as they are registered. A route
// that is not in it is refused to everybody, and makes a test fail. Requests other than
// GET are recorded in the audit log.
func permissions() map[string]rule {
	all := poolPermissions()
	maps.Copy(all, map[string]rule{
		"GET /health/live":     public,
		"GET /health/ready":    public,
		"GET /health/startup":  public,
		"GET /health/status":   needs(auth.Host, auth.Read),
		"GET /v1/openapi.json": public,
		"GET /metrics":         needs(auth.Host, auth.Read),

		"POST /v1/tasks":                     recorded(auth.Task, auth.Operate), // the task says who submitted it
		"POST /v1/tasks/bulk":                recorded(auth.Task, auth.Operate),
		"GET /v1/tasks":                      needs(auth.Task, auth.Read),
		"GET /v1/tasks/{task_uuid}":          needs(auth.Task, auth.Read),
		"GET /v1/tasks/{task_uuid}/steps":    needs(auth.Task, auth.Read),
		"GET /v1/tasks/{task_uuid}/history":  needs(auth.Task, auth.Read),
		"GET /v1/tasks/{task_uuid}/events":   needs(auth.Task, auth.Read),
		"GET /v1/tasks/{task_uuid}/explain":  needs(auth.Task, auth.Read),
		"POST /v1/tasks/{task_uuid}/cancel":  needs(auth.Task, auth.Operate),
		"POST /v1/tasks/{task_uuid}/retry":   needs(auth.Task, auth.Operate),
		"POST /v1/tasks/{task_uuid}/resolve": needs(auth.Task, auth.Operate),
		"GET /v1/steps/{step_uuid}":          needs(auth.Task, auth.Read),
		"GET /v1/steps/{step_uuid}/explain":  needs(auth.Task, auth.Read),
		"POST /v1/steps/{step_uuid}/retry":   needs(auth.Task, auth.Operate),
		"POST /v1/steps/{step_uuid}/resolve": needs(auth.Task, auth.Operate),
		"POST /v1/steps/{step_uuid}/skip":    needs(auth.Task, auth.Operate),

		"GET /v1/queues":                     needs(auth.Queue, auth.Read),
		"GET /v1/queues/{namespace}":         needs(auth.Queue, auth.Read),
		"POST /v1/queues/{namespace}/pause":  needs(auth.Queue, auth.Operate),
		"POST /v1/queues/{namespace}/resume": needs(auth.Queue, auth.Operate),
		"GET /v1/dead-letters":               needs(auth.Queue, auth.Read),
		"GET /v1/dead-letters/{id}":          needs(auth.Queue, auth.Read),
		"POST /v1/dead-letters/discard":      needs(auth.Queue, auth.Operate),
		"POST /v1/dead-letters/replay":       needs(auth.Queue, auth.Operate),
		"POST /v1/dead-letters/{id}/discard": needs(auth.Queue, auth.Operate),
		"POST /v1/dead-letters/{id}/replay":  needs(auth.Queue, auth.Operate),

		"GET /v1/hosts":   needs(auth.Host, auth.Read),
		"GET /v1/workers": needs(auth.Worker, auth.Read),

		"POST /v1/templates":                             needs(auth.Template, auth.Administer),
		"POST /v1/templates/validate":                    recorded(auth.Template, auth.Read), // changes nothing
		"GET /v1/templates":                              needs(auth.Template, auth.Read),
		"GET /v1/templates/{namespace}/{name}/{version}": needs(auth.Template, auth.Read),

		"GET /v1/plugins":                         needs(auth.Plugin, auth.Read),
		"GET /v1/plugins/plan":                    needs(auth.Plugin, auth.Read),
		"POST /v1/plugins/plan":                   needs(auth.Plugin, auth.Administer), // changes nothing, but looks at any file that it names
		"GET /v1/plugins/{kind}/{name}":           needs(auth.Plugin, auth.Read),
		"GET /v1/plugins/{kind}/{name}/history":   needs(auth.Plugin, auth.Read),
		"POST /v1/plugins/apply":                  needs(auth.Plugin, auth.Administer),
		"POST /v1/plugins/{kind}/{name}/swap":     needs(auth.Plugin, auth.Administer),
		"POST /v1/plugins/{kind}/{name}/promote":  needs(auth.Plugin, auth.Administer),
		"POST /v1/plugins/{kind}/{name}/rollback": needs(auth.Plugin, auth.Administer),
		"POST /v1/plugins/{kind}/{name}/release":  needs(auth.Plugin, auth.Administer),

		"GET /v1/system/doctor": needs(auth.Host, auth.Read),

		"GET /v1/system/state":              needs(auth.Host, auth.Read),
		"POST /v1/system/state":             needs(auth.Host, auth.Administer),
		"GET /v1/breakers":                  needs(auth.Host, auth.Read),
		"POST /v1/breakers/{breaker}/open":  needs(auth.Host, auth.Operate),
		"POST /v1/breakers/{breaker}/close": needs(auth.Host, auth.Operate),
		"POST /v1/breakers/{breaker}/reset": needs(auth.Host, auth.Operate),

		"GET /v1/system/configuration":         needs(auth.Config, auth.Read),
		"POST /v1/system/configuration/reload": needs(auth.Config, auth.Administer),

		"GET /v1/events": needs(auth.Task, auth.Read), // and see eventPermissions

		"GET /v1/audit":                     needs(auth.Host, auth.Administer),
		"POST /v1/tokens":                   needs(auth.Token, auth.Administer),
		"GET /v1/tokens":                    needs(auth.Token, auth.Read),
		"POST /v1/tokens/{token_id}/revoke": needs(auth.Token, auth.Administer),
	})
	return all
}

func poolPermissions() map[string]rule {
	return map[string]rule{
		"GET /v1/pools":                needs(auth.Host, auth.Read),
		"GET /v1/pools/{pool}":         needs(auth.Host, auth.Read),
		"GET /v1/pools/{pool}/history": needs(auth.Host, auth.Read),
		"GET /v1/pools/{pool}/samples": needs(auth.Host, auth.Read),
		"PATCH /v1/pools/{pool}":       needs(auth.Host, auth.Administer),
		"POST /v1/pools/{pool}/pause":  needs(auth.Host, auth.Operate),
		"POST /v1/pools/{pool}/resume": needs(auth.Host, auth.Operate),
	}
}

// audited reports whether the use of a route is recorded in the audit log.
func (r rule) audited(method string) bool {
	return !r.public && !r.kept && method != http.MethodGet && method != http.MethodHead
}

// bearerScheme names the security scheme in the description.
const bearerScheme = "bearer"

// describeAccess adds the table to the description of the API.
func describeAccess(doc *huma.OpenAPI) {
	doc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		bearerScheme: {
			Type: "http", Scheme: "bearer",
			Description: "A token created with 'tasker token create', or a JSON Web Token of the identity provider that auth.jwt names. " +
				"Needed only over TCP, and only if auth.enabled is on.",
		},
	}
	table := permissions()
	for path, item := range doc.Paths {
		for method, op := range operations(item) {
			rule, ok := table[method+" "+path]
			switch {
			case !ok:
			case rule.public:
				op.Security = []map[string][]string{}
			default:
				op.Security = []map[string][]string{{bearerScheme: {}}}
				op.Extensions = map[string]any{"x-tasker-permission": rule.need.String()}
			}
		}
	}
}

// operations returns the operations of a path by method.
func operations(item *huma.PathItem) map[string]*huma.Operation {
	all := map[string]*huma.Operation{
		http.MethodGet: item.Get, http.MethodPut: item.Put, http.MethodPost: item.Post, http.MethodDelete: item.Delete,
		http.MethodPatch: item.Patch, http.MethodHead: item.Head, http.MethodOptions: item.Options, http.MethodTrace: item.Trace,
	}
	for method, op := range all {
		if op == nil {
			delete(all, method)
		}
	}
	return all
}

// missing says that a route has no rule.
func missing(pattern string) string {
	return fmt.Sprintf("route %q has no entry in the table of permissions and is refused to everyone", strings.TrimSpace(pattern))
}
