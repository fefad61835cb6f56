package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

type configurationOutput struct{ Body readmodel.Configuration }

type reloadOutput struct{ Body readmodel.Reload }

func (r *routes) configurationRoutes() {
	register(r, huma.Operation{
		OperationID: "show-configuration", Method: http.MethodGet, Path: "/v1/system/configuration", Tags: []string{"system"},
		Summary: "Show the configuration in force, without the values of secrets",
	}, func(ctx context.Context, _ *struct{}) (*configurationOutput, error) {
		return &configurationOutput{Body: r.backend.Configuration.Configuration(ctx)}, nil
	})
	register(r, huma.Operation{
		OperationID: "reload-configuration", Method: http.MethodPost, Path: "/v1/system/configuration/reload", Tags: []string{"system"},
		Summary: "Read the configuration again and apply what can change in a running host",
	}, func(ctx context.Context, _ *struct{}) (*reloadOutput, error) {
		done, err := r.backend.Configuration.ReloadConfiguration(ctx)
		if err != nil {
			return nil, err
		}
		return &reloadOutput{Body: done}, nil
	})
}
