package cli

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// coreCommands makes the commands that need the core, if main provides it.
func (a *app) coreCommands() []*cobra.Command {
	var commands []*cobra.Command
	if a.rt.Up != nil {
		commands = append(commands, a.upCommand())
	}
	if a.rt.Migrate != nil {
		commands = append(commands, a.migrateCommand())
	}
	if a.rt.OpenAPI != nil {
		commands = append(commands, a.openAPICommand())
	}
	if a.rt.Bench != nil {
		commands = append(commands, a.benchCommand())
	}
	if a.rt.Demo != nil {
		commands = append(commands, a.demoCommand())
	}
	return commands
}

func (a *app) upCommand() *cobra.Command {
	var http string
	cmd := &cobra.Command{
		Use: "up", Short: "Run a host in the foreground", Args: arguments(0, 0, ""),
		Long: "Run a host in the foreground. On the first SIGTERM or Ctrl-C, the host lets running steps finish and stops. On the " +
			"second, it cancels them, hands their leases back, and exits with 9. SIGHUP reloads the configuration. Without DATABASE_URL, the " +
			"host runs a private PostgreSQL.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := a.configOptions()
			if err != nil {
				return err
			}
			if http != "" {
				options.Overrides["system.http_listen"] = http
			}
			reload := make(chan os.Signal, 1)
			signal.Notify(reload, syscall.SIGHUP)
			defer signal.Stop(reload)
			err = a.rt.Up(cmd.Context(), UpOptions{Config: options, Abort: a.abort, Reload: reload, Log: a.err})
			if errors.Is(err, errInterrupted) {
				return nil // a host normally ends like this
			}
			return err
		},
	}
	cmd.Flags().StringVar(&http, "http", "", "listen on this loopback address as well, such as 127.0.0.1:8085")
	return cmd
}

func (a *app) migrateCommand() *cobra.Command {
	run := func(status bool) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			options, err := a.configOptions()
			if err != nil {
				return err
			}
			report, err := a.rt.Migrate(cmd.Context(), MigrateOptions{Config: options, Status: status})
			return a.answer(report, err, func() { a.showMigrations(report) })
		}
	}
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring the database's schema up to date", Args: group("migrate", "", "").Args,
		Long: "Bring the database's schema up to date. Several hosts may do this at the same time. 'tasker up' does it by itself unless configured otherwise.",
		RunE: run(false),
	}
	cmd.AddCommand(&cobra.Command{
		Use: "status", Short: "Show the state of the schema without changing it", Args: arguments(0, 0, ""), RunE: run(true),
	})
	return cmd
}

func (a *app) showMigrations(r readmodel.MigrationReport) {
	for _, m := range r.Applied {
		a.printf("applied %d %s\n", m.Version, oneLine(m.Name))
	}
	for _, m := range r.Pending {
		a.printf("%s %d %s\n", a.paint(yellow, "pending"), m.Version, oneLine(m.Name))
	}
	a.printf("schema %d of %d, queues: %s\n", r.Version, r.Latest, oneLine(r.PGMQ))
}

func (a *app) openAPICommand() *cobra.Command {
	return &cobra.Command{
		Use: "openapi", Short: "Print the description of the HTTP API (OpenAPI 3.1)", Args: arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			description, err := a.rt.OpenAPI()
			if err != nil {
				return err
			}
			if _, err := a.out.Write(description); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			return nil
		},
	}
}

// phases shows a bar for each phase of a long piece of work, on a terminal
// only. show is called by one goroutine.
func (a *app) phases() (show func(phase string, done, total int), end func()) {
	if !a.terminal || a.json {
		return nil, func() {}
	}
	container := mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(64), mpb.WithAutoRefresh())
	bars := map[string]*mpb.Bar{}
	show = func(phase string, done, total int) {
		bar, ok := bars[phase]
		if !ok {
			bar = container.AddBar(0,
				mpb.PrependDecorators(decor.Name(phase, decor.WCSyncSpaceR)),
				mpb.AppendDecorators(decor.CountersNoUnit("%d/%d")))
			bars[phase] = bar
		}
		bar.SetTotal(int64(total), false)
		bar.SetCurrent(int64(done))
		if done >= total {
			bar.SetTotal(int64(total), true)
		}
	}
	return show, func() {
		for _, bar := range bars {
			bar.Abort(false)
		}
		container.Wait()
	}
}
