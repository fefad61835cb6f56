package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/bench"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// BenchOptions say what to measure, and where.
type BenchOptions struct {
	Config *config.Config
	Log    hclog.Logger
	// Plugin is the path of the benchmark's plugin; empty: plugins/bench beside
	// this executable.
	Plugin string
	// Force measures on a database that has tasks of others.
	Force bool
	bench.Options
}

// ErrDatabaseInUse is returned if the database to measure on has tasks that are
// not the benchmark's.
var ErrDatabaseInUse = errors.New("the database has other tasks; give the benchmark a database of its own, or use --force")

// benchWindow is how many steps the benchmark's plugin runs at once.
const benchWindow = 256

// Bench runs a host without API, with its handlers in a plugin process, measures
// it and stops it.
func Bench(ctx context.Context, o BenchOptions) (report readmodel.BenchReport, err error) {
	if o.Plugin == "" {
		self, err := os.Executable()
		if err != nil {
			return report, fmt.Errorf("find the benchmark's plugin: %w", err)
		}
		o.Plugin = filepath.Join(filepath.Dir(self), "plugins", "bench")
	}
	plugin := config.PluginSpec{Kind: config.KindHandler, Name: "bench"}
	plugin.Path, plugin.Required, plugin.MaxInFlight, plugin.StartTimeout = o.Plugin, true, benchWindow, 10*time.Second
	c := New(Options{Config: o.Config, Plugins: []config.PluginSpec{plugin}, Log: o.Log, NoAPI: true})
	if err := c.Start(ctx); err != nil {
		return report, err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopBenchTimeout)
		defer cancel()
		err = errors.Join(err, c.Stop(stop))
	}()
	if !o.Force {
		var other bool
		if err := c.pool.QueryRow(ctx, sqlOtherTasks, bench.Namespace).Scan(&other); err != nil {
			return report, fmt.Errorf("look for other tasks: %w", err)
		} else if other {
			return report, ErrDatabaseInUse
		}
	}
	return bench.Run(ctx, c.Engine, c.Store, bench.NewServer(c.pool), o.Options)
}

const stopBenchTimeout = 30 * time.Second

const sqlOtherTasks = `
select exists (select from tasker_tasks t
                 join tasker_task_namespaces ns on ns.namespace_id = t.namespace_id
                where ns.name <> $1::text)`
