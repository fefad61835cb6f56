package core

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/cli"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
)

// demoSwapped is the plugin that the demo swaps.
const demoSwapped = "arithmetic"

// demoPlugins copies the plugins of a plugins.toml into a directory of the demo, so that
// one can be replaced there, and returns the path of a plugins.toml for the copies.
func demoPlugins(source, dir string) (string, error) {
	plugins, err := config.LoadPlugins(source, "development")
	if err != nil {
		return "", err
	}
	if err := makeStateDir(dir); err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "plugin-files")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the demo's directory: %w", err)
	}
	var text string
	for i := range plugins.Specs {
		s := &plugins.Specs[i]
		if err := replaceBinary(s.Path, filepath.Join(dir, s.Name)); err != nil {
			return "", err
		}
		text += fmt.Sprintf("[plugin.%s.%s]\npath = %q\n", s.Kind, s.Name, s.Name)
	}
	path := filepath.Join(dir, "plugins.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write the demo's plugins.toml: %w", err)
	}
	return path, nil
}

// replaceBinary installs a binary the way operators are told to: it writes the new file
// beside the old one and renames it.
func replaceBinary(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read a plugin: %w", err)
	}
	if err := os.WriteFile(to+".tmp", content, 0o700); err != nil {
		return fmt.Errorf("copy a plugin: %w", err)
	}
	if err := os.Rename(to+".tmp", to); err != nil {
		return fmt.Errorf("put a plugin in place: %w", err)
	}
	return nil
}

// demoSwap swaps a plugin by replacing its binary with the next version.
func (c *Core) demoSwap(next string, task client.Submission) *cli.DemoSwap {
	id := pluginhost.SlotID{Kind: config.KindHandler, Name: demoSwapped}
	return &cli.DemoSwap{
		Plugin: "plugin " + demoSwapped + " 1.0.0 → 1.1.0",
		Task:   task,
		Run: func(ctx context.Context) error {
			before, err := c.plugins.Explain(id)
			if err != nil {
				return err
			}
			if err := replaceBinary(next, filepath.Join(filepath.Dir(c.cfg.System.Plugins), demoSwapped)); err != nil {
				return err
			}
			return c.awaitSwap(ctx, id, before.Generation)
		},
		Generations: func(ctx context.Context, tasks []string) ([]cli.DemoGeneration, error) {
			return c.ranBy(ctx, id, tasks)
		},
	}
}

const swapPatience = 30 * time.Second

// awaitSwap waits until a later generation is serving.
func (c *Core) awaitSwap(ctx context.Context, id pluginhost.SlotID, before uint64) error {
	ctx, cancel := context.WithTimeout(ctx, swapPatience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		x, err := c.plugins.Explain(id)
		if err != nil {
			return err
		}
		if x.Generation > before {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the new version of plugin %s is not serving: %w", id.Name, context.Cause(ctx))
		}
	}
}

const sqlRanBy = `
select s.plugin_generation, count(*)
  from tasker_workflow_steps s
 where s.task_uuid = any($1::uuid[]) and s.state = 'complete'
 group by s.plugin_generation order by s.plugin_generation`

// ranBy reports which generations of a plugin ran the steps of the given tasks.
func (c *Core) ranBy(ctx context.Context, id pluginhost.SlotID, tasks []string) ([]cli.DemoGeneration, error) {
	rows, err := c.pool.Query(ctx, sqlRanBy, tasks)
	if err != nil {
		return nil, fmt.Errorf("read which generations ran steps: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (g cli.DemoGeneration, err error) {
		err = row.Scan(&g.Generation, &g.Steps)
		return g, err
	})
	if err != nil {
		return nil, fmt.Errorf("read which generations ran steps: %w", err)
	}
	x, err := c.plugins.Explain(id)
	if err != nil {
		return nil, err
	}
	for i := range all {
		for _, g := range x.Generations {
			if int64(g.Number) == all[i].Generation {
				all[i].Version, all[i].Phase = g.Version, string(g.Phase)
			}
		}
	}
	return all, nil
}
