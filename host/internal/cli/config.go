package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/internal/spelling"
)

func (a *app) configCommand() *cobra.Command {
	return group("config", "Show, check and compare the configuration", "",
		a.configShowCommand(), a.configValidateCommand(), a.configDiffCommand(), a.configReferenceCommand(), a.configReloadCommand())
}

// loadConfig loads the configuration of one environment.
func (a *app) loadConfig(env string) (*config.Config, error) {
	options, err := a.configOptions()
	if err != nil {
		return nil, err
	}
	options.Environment = env
	return config.Load(options)
}

func (a *app) configShowCommand() *cobra.Command {
	var origin, running bool
	cmd := &cobra.Command{
		Use: "show [KEY|TABLE]...", Short: "Show the configuration that a host would start with",
		Long: "Show, as TOML, the configuration that a host would start with now: all keys, or only the given keys and tables. " +
			"With --running, show what is in force in the running host. The values of secrets are never shown.",
		RunE: func(cmd *cobra.Command, args []string) error {
			view, err := a.readConfig(cmd.Context(), running)
			if err != nil {
				return err
			}
			view, err = selected(view, args)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(view)
			}
			a.showConfig(view, origin)
			return nil
		},
	}
	cmd.Flags().BoolVar(&origin, "origin", false, "also show where each value comes from")
	cmd.Flags().BoolVar(&running, "running", false, "show what is in force in the running host")
	return cmd
}

// readConfig reads the configuration from the files or from the running host.
func (a *app) readConfig(ctx context.Context, running bool) (readmodel.Configuration, error) {
	if !running {
		cfg, err := a.loadConfig(a.env)
		if err != nil {
			return readmodel.Configuration{}, err
		}
		return ConfigView(cfg), nil
	}
	c, err := a.connect()
	if err != nil {
		return readmodel.Configuration{}, err
	}
	defer c.Close()
	return c.Configuration(ctx)
}

// ConfigView is a configuration as shown by commands and the API.
func ConfigView(cfg *config.Config) readmodel.Configuration {
	view := readmodel.Configuration{Environment: cfg.Environment, Directory: cfg.Dir}
	for _, e := range cfg.Entries() {
		view.Keys = append(view.Keys, readmodel.ConfigKey(e))
	}
	return view
}

// selected keeps the named keys and tables; without names, all of them.
func selected(view readmodel.Configuration, names []string) (readmodel.Configuration, error) {
	if len(names) == 0 {
		return view, nil
	}
	var kept []readmodel.ConfigKey
	used := map[string]bool{}
	for _, k := range view.Keys {
		for _, name := range names {
			if k.Key == name || strings.HasPrefix(k.Key, name+".") {
				used[name] = true
				kept = append(kept, k)
				break
			}
		}
	}
	for _, name := range names {
		if !used[name] {
			if near := spelling.Nearest(name, keysAndTables(view)); near != "" {
				return view, usagef("%q is neither a key nor a table of the configuration; did you mean %s?", name, near)
			}
			return view, usagef("%q is neither a key nor a table of the configuration; 'tasker config reference' lists them", name)
		}
	}
	view.Keys = kept
	return view, nil
}

// keysAndTables are the names that may be shown.
func keysAndTables(view readmodel.Configuration) []string {
	var names []string
	for _, k := range view.Keys {
		for name := k.Key; name != ""; name = name[:max(0, strings.LastIndexByte(name, '.'))] {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func (a *app) showConfig(view readmodel.Configuration, origin bool) {
	a.printf("%s\n", a.paint(grey, "# environment "+oneLine(view.Environment)))
	if view.Generation > 0 && view.AppliedAt != nil {
		a.printf("%s\n", a.paint(grey, fmt.Sprintf("# generation %d, in force since %s", view.Generation, when(*view.AppliedAt))))
	}
	if len(view.Restart) > 0 {
		a.printf("%s\n", a.paint(yellow, "# changed in the files, waits for a restart: "+oneLine(strings.Join(view.Restart, ", "))))
	}
	if view.Refused != "" {
		a.printf("%s\n", a.paint(red, "# the last change was refused: "+oneLine(view.Refused)))
	}
	width := 0
	for _, k := range view.Keys {
		width = max(width, len(assignment(k)))
	}
	table := ""
	for _, k := range view.Keys {
		if at := k.Key[:strings.LastIndexByte(k.Key, '.')]; at != table {
			table = at
			a.printf("\n%s\n", a.paint(cyan, "["+table+"]"))
		}
		line := oneLine(assignment(k))
		if origin && k.Origin != "" {
			line += strings.Repeat(" ", max(0, width-len(line))) + a.paint(grey, "  # "+oneLine(k.Origin))
		}
		a.printf("%s\n", line)
	}
}

// assignment is a key as a file would set it. A secret that is set becomes a comment,
// so that the output can be used as a file.
func assignment(k readmodel.ConfigKey) string {
	name := k.Key[strings.LastIndexByte(k.Key, '.')+1:]
	if k.Secret && k.Value != "" {
		return "# " + name + " is set and not shown"
	}
	return name + " = " + config.Entry{Value: k.Value}.TOML()
}

func (a *app) configValidateCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "validate", Short: "Check the configuration and plugins.toml without starting anything", Args: arguments(0, 0, ""),
		Long: "Check the configuration and plugins.toml as a host does when it starts, and report every problem with its file, line " +
			"and fix. Exits with 1 if there is a problem.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := exclusive(cmd, [2]string{"env", "all"}); err != nil {
				return &usageError{err: err}
			}
			envs := []string{a.env}
			if all {
				options, err := a.configOptions()
				if err != nil {
					return err
				}
				if envs, err = config.Environments(options); err != nil {
					return err
				}
			}
			var errs []error
			for _, env := range envs {
				if err := a.validateEnvironment(env); err != nil {
					errs = append(errs, err)
				}
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "check all environments: the built-in ones and those you have folders for")
	return cmd
}

func (a *app) validateEnvironment(env string) error {
	cfg, err := a.loadConfig(env)
	if err != nil {
		return inEnvironment(env, err)
	}
	plugins, err := config.LoadPlugins(cfg.System.Plugins, cfg.Environment)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("environment %s: %w", cfg.Environment, err)
	}
	v := validity{Environment: cfg.Environment, Keys: len(cfg.Entries()), Warnings: cfg.Warnings}
	if err == nil {
		v.PluginsFile, v.Plugins = cfg.System.Plugins, len(plugins.Specs)
	}
	if a.json {
		return a.printLine(v)
	}
	for _, w := range v.Warnings {
		fmt.Fprintf(a.err, "%s %s\n", a.paint(yellow, "warning:"), oneLine(w))
	}
	if v.PluginsFile == "" {
		a.printf("%s environment %s: %d keys; there is no %s\n", a.paint(green, "valid"), v.Environment, v.Keys, cfg.System.Plugins)
		return nil
	}
	a.printf("%s environment %s: %d keys, %d plugins in %s\n", a.paint(green, "valid"), v.Environment, v.Keys, v.Plugins, v.PluginsFile)
	return nil
}

// inEnvironment adds the environment to an error of the configuration.
func inEnvironment(env string, err error) error {
	if _, ok := errors.AsType[*config.Error](err); ok && env != "" {
		return fmt.Errorf("environment %s: %w", env, err)
	}
	return err // it does not concern an environment, or already names it
}

// validity is what --json prints of each environment whose configuration is valid.
type validity struct {
	Environment string   `json:"environment"`
	Keys        int      `json:"keys"`
	Plugins     int      `json:"plugins"`
	PluginsFile string   `json:"plugins_file,omitempty"` // left out: there is none
	Warnings    []string `json:"warnings,omitempty"`
}

func (a *app) configDiffCommand() *cobra.Command {
	return &cobra.Command{
		Use: "diff --env A,B", Short: "Compare the configuration of several environments", Args: arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			diff := readmodel.ConfigDiff{Environments: strings.Split(a.env, ","), Keys: []readmodel.ConfigDiffKey{}}
			if len(diff.Environments) < 2 {
				return usagef("name the environments to compare, such as --env test,production")
			}
			configs := make([]*config.Config, len(diff.Environments))
			for i, env := range diff.Environments {
				cfg, err := a.loadConfig(env)
				if err != nil {
					return inEnvironment(env, err)
				}
				configs[i] = cfg
			}
			for _, d := range config.Diff(configs...) {
				diff.Keys = append(diff.Keys, readmodel.ConfigDiffKey(d))
			}
			if a.json {
				return a.printJSON(diff)
			}
			a.showDiff(diff)
			return nil
		},
	}
}

func (a *app) showDiff(diff readmodel.ConfigDiff) {
	if len(diff.Keys) == 0 {
		a.printf("no key differs\n")
		return
	}
	var t table
	t.header(append([]string{"KEY"}, diff.Environments...)...)
	for _, d := range diff.Keys {
		row := []cell{text(d.Key)}
		for _, value := range d.Values {
			row = append(row, text(value))
		}
		t.add(row...)
	}
	a.printTable(&t)
}

func (a *app) configReloadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reload", Short: "Make the running host reload its configuration", Args: arguments(0, 0, ""),
		Long: "Make the running host reload its configuration, as it also does when a file changes or on SIGHUP. If the new " +
			"configuration is valid, the changes that a running host can take over come into force; otherwise the old configuration stays.",
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			r, err := c.ReloadConfiguration(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(r)
			}
			if len(r.Applied) == 0 {
				a.printf("nothing to apply; generation %d stays in force\n", r.Generation)
			} else {
				a.printf("generation %d is in force; changed: %s\n", r.Generation, oneLine(strings.Join(r.Applied, ", ")))
			}
			if len(r.Restart) > 0 {
				a.printf("%s %s\n", a.paint(yellow, "waits for a restart:"), oneLine(strings.Join(r.Restart, ", ")))
			}
			return nil
		}),
	}
}

func (a *app) configReferenceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reference", Short: "Print the reference page of all keys (Markdown)", Args: arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			page, err := config.Reference()
			if err != nil {
				return err
			}
			a.printf("%s", page)
			return nil
		},
	}
}
