package apitest

import (
	"context"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// Configuration implements [api.Configuration].
func (b *Backend) Configuration(context.Context) readmodel.Configuration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return readmodel.Configuration{
		Environment: "test", Generation: 2, AppliedAt: new(Epoch), Restart: []string{"orchestration.lease"},
		Keys: []readmodel.ConfigKey{
			{Key: "database.url", Value: "[redacted]", Origin: "environment variable DATABASE_URL", Secret: true},
			{Key: "engine.max_steps", Value: 50, Origin: "/etc/tasker/host.toml:2"},
			{Key: "orchestration.lease", Value: "15s", Origin: "built-in environments/test/orchestration.toml:3"},
			{Key: "system.max_result_bytes", Value: 4194304, Origin: "built-in base/system.toml:10"},
		},
	}
}

// ReloadConfiguration implements [api.Configuration].
func (b *Backend) ReloadConfiguration(context.Context) (readmodel.Reload, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return readmodel.Reload{}, b.fail
	}
	return readmodel.Reload{Generation: 3, Applied: []string{"engine.max_steps"}, Restart: []string{"orchestration.lease"}}, nil
}

var _ api.Configuration = (*Backend)(nil)
