package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/schema"
	"github.com/tasker-systems/tasker-host/sdk/tryout"
)

// tryoutFlags are the flags of the commands that start a plugin themselves.
type tryoutFlags struct {
	options string
	passEnv []string
}

func (f *tryoutFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.options, "options", "", "the plugin's options: a JSON object, or @FILE to read it from a file")
	cmd.Flags().StringSliceVar(&f.passEnv, "pass-env", nil, "environment variables to pass to the plugin")
}

// start returns how to start the executable, and its options.
func (f *tryoutFlags) start(a *app, path string) (tryout.Start, json.RawMessage, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, fmt.Errorf("find the plugin: %w", err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, usagef("%s does not exist", path)
	case err != nil:
		return nil, nil, fmt.Errorf("find the plugin: %w", err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return nil, nil, usagef("%s is not an executable file", path)
	}
	options := []byte(f.options)
	if file, ok := strings.CutPrefix(f.options, "@"); ok {
		if options, err = a.readInput(file); err != nil {
			return nil, nil, err
		}
	}
	if len(options) > 0 {
		if err := payload.CheckObject(options, payload.ContextLimits()); err != nil {
			return nil, nil, usagef("--options: %w", err)
		}
	}
	return tryout.Process(path, f.passEnv...), options, nil
}

const checkHelp = `Start a plugin without a host and check that it fulfills the contract, whatever its kind and language.
Because handlers and reporters may have real effects, handlers are called only with the given examples, and reporters
get an event only with --report. Exits with 0 if all checks pass, with 1 if one fails.`

func (a *app) pluginCheckCommand() *cobra.Command {
	var flags tryoutFlags
	var examples []string
	cfg := tryout.Config{Schema: func(text string) error {
		_, err := schema.Compile([]byte(text))
		return err
	}}
	cmd := &cobra.Command{
		Use: "check PATH", Short: "Check that a plugin fulfills the contract", Long: checkHelp,
		Args: arguments(1, 1, "the PATH of a plugin"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cfg.Patience <= 0 {
				return usagef("--patience %s: want more than 0s", cfg.Patience)
			}
			start, options, err := flags.start(a, args[0])
			if err != nil {
				return err
			}
			cfg.Options = options
			for _, e := range examples {
				name, file, ok := strings.Cut(e, "=")
				if !ok {
					return usagef("--example %q: want HANDLER=FILE", e)
				}
				step, err := a.readStep(file)
				if err != nil {
					return err
				}
				cfg.Examples = append(cfg.Examples, tryout.Example{Handler: name, Step: step})
			}
			return a.checkPlugin(cmd.Context(), start, cfg)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringArrayVar(&examples, "example", nil, "a step that must succeed, as HANDLER=FILE; the file is an input as for 'plugin run'")
	cmd.Flags().BoolVar(&cfg.Report, "report", false, "send reporters an event, which may reach people")
	cmd.Flags().DurationVar(&cfg.Patience, "patience", 10*time.Second, "how long one call may take")
	return cmd
}

func (a *app) readStep(file string) (tryout.Step, error) {
	raw, err := a.readInput(file)
	if err != nil {
		return tryout.Step{}, err
	}
	step, err := tryout.ParseStep(raw)
	if err != nil {
		return step, &usageError{err: fmt.Errorf("%s: %w", file, err)}
	}
	return step, nil
}

// checkReport is what `plugin check --json` prints.
type checkReport struct {
	OK     bool            `json:"ok"`
	Checks []tryout.Result `json:"checks"`
}

func (a *app) checkPlugin(ctx context.Context, start tryout.Start, cfg tryout.Config) error {
	show := a.showCheck
	if a.json {
		show = func(tryout.Result) {}
	}
	results := tryout.Check(ctx, start, cfg, show)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	report := checkReport{Checks: results}
	failed := 0
	for _, r := range results {
		if r.Problem != "" {
			failed++
		}
	}
	report.OK = failed == 0
	if a.json {
		if err := a.printJSON(report); err != nil {
			return err
		}
	} else if report.OK {
		a.printf("\nthe plugin fulfills the contract, as far as %d checks can tell\n", len(results))
	} else {
		a.printf("\n%d of %d checks failed\n", failed, len(results))
	}
	if !report.OK {
		return errShown
	}
	return nil
}

func (a *app) showCheck(r tryout.Result) {
	switch {
	case r.Problem != "":
		a.printf("%s  %s\n", a.paint(red, "FAIL"), oneLine(r.Name))
		for line := range strings.Lines(printable(r.Problem)) {
			a.printf("      %s\n", strings.TrimRight(line, "\n"))
		}
	case r.Note != "":
		a.printf("%s  %s (%s)\n", a.paint(yellow, "--  "), oneLine(r.Name), oneLine(r.Note))
	default:
		a.printf("%s  %s\n", a.paint(green, "ok  "), oneLine(r.Name))
	}
}
