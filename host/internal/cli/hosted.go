package cli

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// coreCommands makes the commands that need the core, as far as main wired it.
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
		Long: "Run a host in the foreground. The first SIGTERM or Ctrl-C lets running steps finish, the second cancels them " +
			"and hands their leases back. Without DATABASE_URL the host runs a private PostgreSQL.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := a.configOptions()
			if err != nil {
				return err
			}
			if http != "" {
				options.Overrides["system.http_listen"] = http
			}
			err = a.rt.Up(cmd.Context(), UpOptions{Config: options, Abort: a.abort, Log: a.err})
			if errors.Is(err, errInterrupted) {
				return nil // that is how a host ends
			}
			return err
		},
	}
	cmd.Flags().StringVar(&http, "http", "", "also listen on this loopback address, such as 127.0.0.1:8085")
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
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(report)
			}
			a.showMigrations(report)
			return nil
		}
	}
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring the database's schema up to date", Args: group("migrate", "", "").Args,
		Long: "Bring the database's schema up to date. Several hosts may do it at once. 'tasker up' does it by itself unless configured otherwise.",
		RunE: run(false),
	}
	cmd.AddCommand(&cobra.Command{
		Use: "status", Short: "Say where the schema stands and change nothing", Args: arguments(0, 0, ""), RunE: run(true),
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

func (a *app) benchCommand() *cobra.Command {
	var tasks int
	cmd := &cobra.Command{
		Use: "bench SHAPE", Short: "Measure throughput and latency", Args: arguments(1, 1, "a SHAPE, such as linear"),
		Long: "Measure on a host of its own: throughput at full load, latency on the idle system, and what a step costs the " +
			"database. The shapes: linear (four steps in a line).",
		RunE: func(cmd *cobra.Command, args []string) error {
			if tasks < 1 {
				return usagef("--tasks %d: want at least 1", tasks)
			}
			options, err := a.configOptions()
			if err != nil {
				return err
			}
			show, end := a.phases()
			report, err := a.rt.Bench(cmd.Context(), BenchOptions{Config: options, Shape: args[0], Tasks: tasks, Progress: show})
			end()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(report)
			}
			a.showBench(report)
			return nil
		},
	}
	cmd.Flags().IntVar(&tasks, "tasks", 20000, "how many tasks run at full load")
	return cmd
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

func (a *app) showBench(r readmodel.BenchReport) {
	var t table
	fact := func(name string, value float64, digits int, unit string) {
		t.add(cell{text: name, colour: grey}, text(strconv.FormatFloat(value, 'f', digits, 64)+unit))
	}
	t.add(cell{text: "measured", colour: grey}, text(fmt.Sprintf("%s, %d tasks, %d steps in %.1f s", r.Name, r.Tasks, r.Steps, r.Seconds)))
	fact("steps a second", r.StepsPerSecond, 0, "")
	fact("tasks a second", r.TasksPerSecond, 0, "")
	fact("latency p50", r.LatencyMS.P50, 2, " ms")
	fact("latency p95", r.LatencyMS.P95, 2, " ms")
	fact("latency p99", r.LatencyMS.P99, 2, " ms")
	fact("WAL a step", r.WALBytesPerStep, 0, " bytes")
	fact("commits a step", r.CommitsPerStep, 3, "")
	a.printTable(&t)
}
