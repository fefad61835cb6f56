package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// PluginViews shows what runs, why, and what would change.
type PluginViews interface {
	// PluginPlan returns what the files ask for that does not run yet. Faults:
	// CodePluginsInvalid with one issue per problem in the files.
	PluginPlan(ctx context.Context) (readmodel.PluginPlan, error)
	// PluginPlanOf is PluginPlan for a text that would become plugins.toml.
	PluginPlanOf(ctx context.Context, text string) (readmodel.PluginPlan, error)
	// PluginFault says what is wrong with the files at present; empty: nothing.
	PluginFault(ctx context.Context) string
	// PluginHistory returns at most limit events of a plugin, latest first: those before
	// the event with the id before; if that is 0, the latest.
	PluginHistory(ctx context.Context, id PluginID, before int64, limit int) ([]readmodel.PluginEvent, error)
	// Plugin returns everything that is known about a plugin.
	Plugin(ctx context.Context, id PluginID) (readmodel.PluginDetail, error)
}

// PluginChanges changes what runs. Each method returns when the change is made or, if the
// plugin's rollout proceeds in steps, when it is on its way. Faults: CodePluginRefused
// (conflict), with the reason, if the change cannot be made.
type PluginChanges interface {
	// ApplyPlugins makes what runs match the files, now.
	ApplyPlugins(ctx context.Context, reason string) (readmodel.PluginPlan, error)
	// SwapPlugin gives a plugin another binary, which is a file on the host's machine.
	SwapPlugin(ctx context.Context, id PluginID, artifact, reason string) error
	// RollBackPlugin reverts the last change.
	RollBackPlugin(ctx context.Context, id PluginID, reason string) error
	// PromotePlugin ends a rollout: the new generation takes over.
	PromotePlugin(ctx context.Context, id PluginID, reason string) error
	// ReleasePlugin releases a binary from quarantine, or all if the digest is empty.
	ReleasePlugin(ctx context.Context, id PluginID, sha256, reason string) error
}

// PluginID names a plugin.
type PluginID struct{ Kind, Name string }

// PluginPath names a plugin in a path. It is exported because huma does not find
// parameters of embedded structs otherwise.
type PluginPath struct {
	Kind string `path:"kind" enum:"handler,scaling,health"`
	Name string `path:"name" pattern:"^[a-z][a-z0-9_-]{0,62}$" patternDescription:"lower-case letters, digits, _ and -"`
}

func (in *PluginPath) id() PluginID { return PluginID{Kind: in.Kind, Name: in.Name} }

// PluginReasonRequest says why a plugin is changed.
type PluginReasonRequest struct {
	Reason string `json:"reason,omitempty" maxLength:"1000" doc:"Kept in the plugin's history."`
}

// PlanTextPlace stands for the file, before the line, in the locations of problems in the
// text of a [PluginPlanRequest].
const PlanTextPlace = "text"

// PluginPlanRequest is a text that would become plugins.toml.
type PluginPlanRequest struct {
	Text string `json:"text" doc:"The text of a plugins.toml. Paths in it are relative to the directory of the host's plugins.toml, on its machine."`
}

// PluginSwapRequest gives a plugin another binary.
type PluginSwapRequest struct {
	Artifact string `json:"artifact" minLength:"1" maxLength:"4096" pattern:"^/" patternDescription:"an absolute path" doc:"The path of the binary on the host's machine."`
	Reason   string `json:"reason,omitempty" maxLength:"1000" doc:"Kept in the plugin's history."`
}

// PluginReleaseRequest releases binaries from quarantine.
type PluginReleaseRequest struct {
	SHA256 string `json:"sha256,omitempty" pattern:"^[0-9a-f]{0,64}$" patternDescription:"hexadecimal digits" doc:"Of the binary, or its first digits. Default: all binaries."`
	Reason string `json:"reason,omitempty" maxLength:"1000" doc:"Kept in the plugin's history."`
}

type pluginHistoryInput struct {
	PluginPath
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	Cursor string `query:"cursor" maxLength:"200" doc:"next_cursor of the previous page."`
}

type pluginReasonInput struct {
	PluginPath
	Body PluginReasonRequest
}

type (
	planOutput   struct{ Body readmodel.PluginPlan }
	pluginOutput struct{ Body readmodel.PluginDetail }

	historyPluginOutput struct{ Body readmodel.PluginHistory }
)

func (r *routes) pluginRoutes() {
	register(r, huma.Operation{
		OperationID: "plan-plugins", Method: http.MethodGet, Path: "/v1/plugins/plan", Tags: []string{"plugins"},
		Summary: "Show what plugins.toml and plugins.lock ask for that is not running yet",
	}, func(ctx context.Context, _ *struct{}) (*planOutput, error) {
		plan, err := r.backend.PluginViews.PluginPlan(ctx)
		return &planOutput{Body: plan}, err
	})
	register(r, huma.Operation{
		OperationID: "plan-plugins-of", Method: http.MethodPost, Path: "/v1/plugins/plan", Tags: []string{"plugins"},
		Summary: "Show what another plugins.toml would change, without changing anything; audited, because it reads the files it names",
	}, func(ctx context.Context, in *struct{ Body PluginPlanRequest }) (*planOutput, error) {
		plan, err := r.backend.PluginViews.PluginPlanOf(ctx, in.Body.Text)
		return &planOutput{Body: plan}, err
	})
	register(r, huma.Operation{
		OperationID: "apply-plugins", Method: http.MethodPost, Path: "/v1/plugins/apply", Tags: []string{"plugins"},
		Summary: "Apply the plugin files, without waiting; what failed before is tried again",
	}, func(ctx context.Context, in *struct{ Body PluginReasonRequest }) (*planOutput, error) {
		plan, err := r.backend.PluginChanges.ApplyPlugins(ctx, in.Body.Reason)
		return &planOutput{Body: plan}, err
	})
	register(r, huma.Operation{
		OperationID: "explain-plugin", Method: http.MethodGet, Path: "/v1/plugins/{kind}/{name}", Tags: []string{"plugins"},
		Summary: "Explain which generation of a plugin is running, why, and what was rolled back",
	}, func(ctx context.Context, in *PluginPath) (*pluginOutput, error) { return r.pluginDetail(ctx, in.id()) })
	register(r, huma.Operation{
		OperationID: "swap-plugin", Method: http.MethodPost, Path: "/v1/plugins/{kind}/{name}/swap", Tags: []string{"plugins"},
		Summary: "Replace a plugin's binary while it runs",
	}, func(ctx context.Context, in *struct {
		PluginPath
		Body PluginSwapRequest
	},
	) (*pluginOutput, error) {
		err := r.backend.PluginChanges.SwapPlugin(ctx, in.id(), in.Body.Artifact, in.Body.Reason)
		return r.pluginChanged(ctx, in.id(), err)
	})
	register(r, huma.Operation{
		OperationID: "release-plugin", Method: http.MethodPost, Path: "/v1/plugins/{kind}/{name}/release", Tags: []string{"plugins"},
		Summary: "Release binaries from a plugin's quarantine",
	}, func(ctx context.Context, in *struct {
		PluginPath
		Body PluginReleaseRequest
	},
	) (*pluginOutput, error) {
		err := r.backend.PluginChanges.ReleasePlugin(ctx, in.id(), in.Body.SHA256, in.Body.Reason)
		return r.pluginChanged(ctx, in.id(), err)
	})
	register(r, huma.Operation{
		OperationID: "plugin-history", Method: http.MethodGet, Path: "/v1/plugins/{kind}/{name}/history", Tags: []string{"plugins"},
		Summary: "List what happened to a plugin, on all hosts of the environment, newest first",
	}, r.pluginHistory)
	r.pluginVerb("rollback", "Roll back the last change of a plugin", PluginChanges.RollBackPlugin)
	r.pluginVerb("promote", "End a rollout: the new generation takes over", PluginChanges.PromotePlugin)
}

func (r *routes) pluginHistory(ctx context.Context, in *pluginHistoryInput) (*historyPluginOutput, error) {
	before, err := beforeEvent(in.Cursor)
	if err != nil {
		return nil, err
	}
	events, err := r.backend.PluginViews.PluginHistory(ctx, in.id(), before, in.Limit+1)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 && before == 0 { // the plugin is new, or there never was one
		if _, err := r.backend.PluginViews.Plugin(ctx, in.id()); err != nil {
			return nil, err
		}
	}
	items, more := trim(events, in.Limit)
	out := &historyPluginOutput{Body: readmodel.PluginHistory{Items: items}}
	if more {
		out.Body.NextCursor = encodeCursor("p", strconv.FormatInt(items[len(items)-1].ID, 10))
	}
	return out, nil
}

// beforeEvent reads the cursor of a plugin's history; an empty one means the latest
// event.
func beforeEvent(cursor string) (int64, error) {
	if cursor == "" {
		return 0, nil
	}
	before, err := after("p", cursor)
	if err == nil && before == 0 {
		err = badCursor()
	}
	return before, err
}

func (r *routes) pluginVerb(verb, summary string, do func(PluginChanges, context.Context, PluginID, string) error) {
	register(r, huma.Operation{
		OperationID: verb + "-plugin", Method: http.MethodPost, Path: "/v1/plugins/{kind}/{name}/" + verb, Tags: []string{"plugins"},
		Summary: summary,
	}, func(ctx context.Context, in *pluginReasonInput) (*pluginOutput, error) {
		return r.pluginChanged(ctx, in.id(), do(r.backend.PluginChanges, ctx, in.id(), in.Body.Reason))
	})
}

// pluginChanged answers a change with the resulting state.
func (r *routes) pluginChanged(ctx context.Context, id PluginID, err error) (*pluginOutput, error) {
	if err != nil {
		return nil, err
	}
	return r.pluginDetail(ctx, id)
}

func (r *routes) pluginDetail(ctx context.Context, id PluginID) (*pluginOutput, error) {
	detail, err := r.backend.PluginViews.Plugin(ctx, id)
	if err != nil {
		return nil, err
	}
	return &pluginOutput{Body: detail}, nil
}
