package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/cli/scaffold"
	"github.com/tasker-systems/tasker-host/host/internal/telemetry"
)

const newHelp = `Create a folder with a plugin that builds, passes its tests and runs, as a starting point.

The plugin's go.mod uses a checkout of Tasker Host if there is one: --source, or the one that this command was built in or
is run in. Otherwise it requires the published module in the version of this command.`

// madeFiles is what `plugin new --json` prints.
type madeFiles struct {
	Dir    string   `json:"dir"`
	Source string   `json:"source,omitempty"`
	Files  []string `json:"files"`
}

func (a *app) pluginNewCommand() *cobra.Command {
	var p scaffold.Plugin
	cmd := &cobra.Command{
		Use: "new KIND NAME", Short: "Create a folder with a new handler, scaling or health plugin", Long: newHelp,
		Args: arguments(2, 2, "a KIND (handler, scaling or health) and a NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			p.Kind, p.Name = args[0], args[1]
			if err := p.Named(); err != nil {
				return &usageError{err: err}
			}
			if p.Dir == "" {
				p.Dir = p.Name
			}
			if err := findSource(&p); err != nil {
				return err
			}
			files, err := scaffold.Write(p)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(madeFiles{Dir: p.Dir, Source: p.Source, Files: files})
			}
			a.printf("created %s: %s\n", p.Dir, strings.Join(files, ", "))
			a.printf("next:\n  cd %s\n  go mod tidy && go test ./... && go build -o bin/%s .\n  tasker plugin check bin/%s\n", p.Dir, p.Name, p.Name)
			return nil
		},
	}
	cmd.Flags().StringVar(&p.Dir, "dir", "", "the folder to create (default: NAME)")
	cmd.Flags().StringVar(&p.Source, "source", "", "a checkout of Tasker Host to build with")
	return cmd
}

var release = regexp.MustCompile(`^v?\d+\.\d+\.\d+$`)

// findSource finds the module that the plugin is built with.
func findSource(p *scaffold.Plugin) error {
	build := telemetry.ThisBuild()
	p.Go = "1.26"
	if release.MatchString(build.Version) {
		p.Version = "v" + strings.TrimPrefix(build.Version, "v")
	}
	if p.Source != "" {
		source, err := filepath.Abs(p.Source)
		if err != nil {
			return fmt.Errorf("find the source: %w", err)
		}
		if scaffold.FindSource(source) != source {
			return usagef("--source %s is not a checkout of Tasker Host: its go.mod is missing", source)
		}
		p.Source = source
		return nil
	}
	var places []string
	if dir, err := os.Getwd(); err == nil {
		places = append(places, dir)
	}
	if own, err := os.Executable(); err == nil {
		places = append(places, filepath.Dir(own))
	}
	p.Source = scaffold.FindSource(places...)
	return nil
}
