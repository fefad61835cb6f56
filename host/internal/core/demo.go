package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/cli"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/telemetry"
)

// demoTasks are the example workflows with real input, from the source tree.
var demoTasks = []struct{ template, input string }{
	{"arithmetic/templates/linear.yaml", "arithmetic/inputs/linear.json"},
	{"arithmetic/templates/diamond.yaml", "arithmetic/inputs/diamond.json"},
	{"arithmetic/templates/tree.yaml", "arithmetic/inputs/tree.json"},
	{"arithmetic/templates/mixed_dag.yaml", "arithmetic/inputs/mixed_dag.json"},
	{"fulfillment/templates/process_order.yaml", "fulfillment/inputs/process_order.json"},
}

// demo starts a host on its own private PostgreSQL, whatever database is configured, with
// the plugins of plugins.toml, and applies the example templates.
func demo(ctx context.Context, o config.Options) (_ *cli.DemoHost, err error) {
	cfg, err := config.Load(o)
	if err != nil {
		return nil, err
	}
	cfg.Database.URL = config.NewSecret("")
	source := cfg.System.Plugins
	setStateDir(cfg, filepath.Join(cfg.System.StateDir, "demo"))
	if cfg.System.Plugins, err = demoPlugins(source, cfg.System.StateDir); err != nil {
		return nil, errors.Join(errors.New("the demo runs in the source tree, after make build"), err)
	}
	log, err := newLogger(cfg, func(l *telemetry.LogOptions) { l.Level = "warn" })
	if err != nil {
		return nil, err
	}
	c := New(Options{Config: cfg, Log: log})
	if err := c.selectPlugins(); err != nil || len(c.opts.Plugins) == 0 {
		return nil, errors.Join(errors.New("the demo runs in the source tree, after make build"), err)
	}
	err = c.Start(ctx)
	if outdated(cfg, err) {
		if err := discard(cfg, log); err != nil {
			return nil, err
		}
		c = New(Options{Config: cfg, Log: log})
		if err := c.selectPlugins(); err != nil {
			return nil, err
		}
		err = c.Start(ctx)
	}
	if err != nil {
		return nil, err
	}
	host := &cli.DemoHost{About: c.about(), Socket: cfg.System.Socket, Stop: c.Stop}
	host.Submissions, err = applyExamples(ctx, cfg, filepath.Dir(source))
	if err != nil {
		return nil, errors.Join(err, c.Stop(context.WithoutCancel(ctx)))
	}
	host.Swap = c.demoSwap(filepath.Join(filepath.Dir(source), "bin", "plugins", "next", demoSwapped), host.Submissions[0])
	return host, nil
}

// about describes in one line what a started host consists of.
func (c *Core) about() string {
	var parts []string
	if cluster := c.database.cluster; cluster != nil {
		parts = append(parts, fmt.Sprintf("PostgreSQL %d in %s", cluster.Binaries().Major, cluster.Dir()))
	}
	for _, p := range c.plugins.Status() {
		parts = append(parts, fmt.Sprintf("plugin %s (process %d)", p.Name, p.PID))
	}
	return strings.Join(parts, ", ")
}

// applyExamples stores the example templates through the host's own API, and
// returns the tasks to submit.
func applyExamples(ctx context.Context, cfg *config.Config, tree string) ([]client.Submission, error) {
	api, err := client.New(client.Options{Socket: cfg.System.Socket})
	if err != nil {
		return nil, err
	}
	defer api.Close()
	dir := filepath.Join(tree, "plugins", "examples")
	var all []client.Submission
	for _, d := range demoTasks {
		path := filepath.Join(dir, filepath.FromSlash(d.template))
		source, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("the demo runs in the source tree: %w", err)
		}
		input, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(d.input)))
		if err != nil {
			return nil, fmt.Errorf("the demo runs in the source tree: %w", err)
		}
		t, _, err := api.ApplyTemplate(ctx, path, source)
		if err != nil {
			return nil, fmt.Errorf("apply %s: %w", path, err)
		}
		all = append(all, client.Submission{
			Namespace: t.Namespace, Name: t.Name, Version: t.Version, Context: input, Initiator: "demo", Reason: "make demo",
		})
	}
	return all, nil
}
