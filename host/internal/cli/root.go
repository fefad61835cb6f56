package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/telemetry"
)

// app is one run of the command.
type app struct {
	rt       Runtime
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	abort    <-chan struct{}
	now      func() time.Time
	terminal bool
	colour   bool

	ran   bool   // the command line was valid
	usage string // of the command that ran

	// Flags of every command.
	json      bool
	socket    string
	url       string
	tokenFile string
	env       string
	configDir string
	set       []string
}

const rootHelp = `Tasker runs tasks. A task is a graph of steps, and handlers in plugins run the steps.

'tasker up' runs a host; most other commands talk to it over its unix socket.

Exit codes: 0 success, 1 failure, 2 the command line is invalid, 3 a watched task ended in a state
other than complete, 4 the named object does not exist, 5 no host answers, 6 the current state does
not allow it (such as a retry of a step that has not failed), 7 the token is missing or was refused,
8 the token lacks the permission, 9 the host stopped but cancelled running steps, 10 some lines of a
bulk submission were refused, 130 interrupted.

Environment: TASKER_SOCKET (like --socket), TASKER_TOKEN (bearer token for --url), TASKER_ENV (like --env),
TASKER_CONFIG (like --config), NO_COLOR (no colours).`

func (a *app) root() *cobra.Command {
	root := group("tasker", "Run tasks as graphs of steps", rootHelp,
		a.taskCommand(), a.stepCommand(), a.dlqCommand(), a.queueCommand(), a.hostCommand(), a.poolCommand(), a.stateCommand(), a.shutdownCommand(), a.breakerCommand(), a.workerCommand(), a.tokenCommand(), a.auditCommand(), a.eventsCommand(),
		a.templateCommand(), a.pluginCommand(), a.configCommand(), a.scaleCommand(), a.doctorCommand(), a.healthCommand(), a.versionCommand())
	root.AddCommand(a.coreCommands()...)
	a.addCompletions(root)
	root.SetFlagErrorFunc(flagFault)
	root.Version = telemetry.ThisBuild().String() // gives it --version
	root.SetVersionTemplate("tasker {{.Version}}\n")
	root.SilenceErrors, root.SilenceUsage = true, true
	// Groups have no usage of their own.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable (not .DisableFlagsInUseLine)}}", 1))
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := exclusive(cmd, [2]string{"socket", "url"}, [2]string{"input", "context"},
			[2]string{"dot", "mermaid"}, [2]string{"graph", "dot"}, [2]string{"graph", "mermaid"}, [2]string{"graph", "history"}); err != nil {
			return err
		}
		if err := notEmpty(cmd, "idempotency-key", "input", "context", "bulk"); err != nil {
			return err
		}
		if _, err := a.configOptions(); err != nil {
			return err
		}
		a.ran = true
		return nil
	}
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "print JSON")
	flags.StringVar(&a.socket, "socket", "", "path of the host's unix socket (default: as configured)")
	flags.StringVar(&a.url, "url", "", "URL of the host, instead of the socket, such as http://127.0.0.1:8085")
	flags.StringVar(&a.tokenFile, "token-file", "", "file with the bearer token for --url (default: the token in TASKER_TOKEN)")
	flags.StringVar(&a.env, "env", "", "environment: development, test, production or one of your own")
	flags.StringVar(&a.configDir, "config", "", "directory with your configuration files")
	flags.StringArrayVar(&a.set, "set", nil, "set a configuration key, such as database.max_connections=20; may be repeated")
	return root
}

// exclusive refuses pairs of flags that exclude each other.
func exclusive(cmd *cobra.Command, pairs ...[2]string) error {
	for _, p := range pairs {
		if cmd.Flags().Changed(p[0]) && cmd.Flags().Changed(p[1]) {
			return fmt.Errorf("--%s and --%s exclude each other: give one", p[0], p[1])
		}
	}
	return nil
}

// notEmpty refuses flags with an empty value, such as from an unset variable in a
// script: a task without its idempotency key or its input would not be the one that
// was meant.
func notEmpty(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return fmt.Errorf("--%s is empty: give it a value, or leave it out", name)
		}
	}
	return nil
}

// flagFault says what a flag wants; the library says which of its functions failed.
func flagFault(_ *cobra.Command, err error) error {
	text := err.Error()
	if number, ok := errors.AsType[*strconv.NumError](err); ok {
		want := "want a number"
		if number.Func == "ParseInt" || number.Func == "ParseUint" {
			want = "want a whole number"
		}
		if errors.Is(number, strconv.ErrRange) {
			want += " in range"
		}
		return errors.New(strings.Replace(text, number.Error(), want, 1))
	}
	if before, _, ok := strings.Cut(text, ": time: "); ok {
		return fmt.Errorf("%s: want a duration with its unit, such as 30s", before)
	}
	return err
}

// strict makes the library's own commands behave like ours: unknown arguments are an
// error.
func strict(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "completion":
			g := group("completion", "", "")
			cmd.Use, cmd.DisableFlagsInUseLine, cmd.Args, cmd.RunE = g.Use, true, g.Args, g.RunE
		case "help":
			cmd.Run = nil
			cmd.RunE = func(_ *cobra.Command, args []string) error {
				about, rest, err := root.Find(args)
				if err == nil && len(rest) > 0 {
					err = fmt.Errorf("%q is not a command of '%s'", rest[0], about.CommandPath())
				}
				if err != nil {
					return &usageError{err: err}
				}
				about.InitDefaultHelpFlag()
				return about.Help()
			}
		}
	}
}

// summed is the long help of a command. It begins with the short help because only
// the long one is shown if there is one.
func summed(short, long string) string {
	if long == "" {
		return ""
	}
	return short + ".\n\n" + long
}

// group makes a command that only contains others.
func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: use + " COMMAND", Short: short, Long: long, DisableFlagsInUseLine: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			text := fmt.Sprintf("%q is not a command of '%s'", args[0], cmd.CommandPath())
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				text += fmt.Sprintf("; did you mean %s?", strings.Join(near, " or "))
			}
			return errors.New(text)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(cmd.ErrOrStderr())
			_ = cmd.Help()
			return &usageError{err: errors.New("name a command")}
		},
		SuggestionsMinimumDistance: 2,
	}
	g.AddCommand(commands...)
	return g
}

// configOptions says where the configuration comes from.
func (a *app) configOptions() (config.Options, error) {
	o := config.Options{Environment: a.env, Dir: a.configDir, Overrides: map[string]string{}, Environ: os.Environ()}
	for _, kv := range a.set {
		key, value, ok := strings.Cut(kv, "=")
		if !ok {
			return o, usagef("--set %q: want key=value", kv)
		}
		o.Overrides[key] = value
	}
	if socket := a.socketOverride(); socket != "" {
		o.Overrides["system.socket"] = socket
	}
	return o, nil
}

func (a *app) socketOverride() string {
	if a.socket != "" {
		return a.socket
	}
	return a.getenv("TASKER_SOCKET")
}

// connect returns a client of the host that the flags name. Host and client find the
// same socket because both read the configuration.
func (a *app) connect() (*client.Client, error) {
	o := client.Options{URL: a.url, Socket: a.socketOverride()}
	if o.URL != "" {
		token, err := a.token()
		if err != nil {
			return nil, err
		}
		o.Token = token
	}
	if o.URL == "" && o.Socket == "" {
		options, err := a.configOptions()
		if err != nil {
			return nil, err
		}
		cfg, err := config.Load(options)
		if err != nil {
			return nil, fmt.Errorf("find the host's socket (or name it with --socket): %w", err)
		}
		o.Socket = cfg.System.Socket
	}
	c, err := client.New(o)
	if err != nil {
		return nil, &usageError{err: err}
	}
	return c, nil
}

// withClient makes a command body that talks to a host.
func (a *app) withClient(run func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		defer c.Close()
		return run(cmd.Context(), c, args)
	}
}

// answer prints the result of a call: unchanged with --json, otherwise as show does.
func (a *app) answer(v any, err error, show func()) error {
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(v)
	}
	show()
	return nil
}

// arguments checks their number; names says what they are.
func arguments(least, most int, names string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return fmt.Errorf("expected %s", names)
		case most >= 0 && len(args) > most:
			return fmt.Errorf("unexpected argument %q", args[most])
		}
		if i := slices.Index(args, ""); i >= 0 {
			return fmt.Errorf("argument %d is empty", i+1)
		}
		return nil
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			build := telemetry.ThisBuild()
			if a.json {
				return a.printJSON(build)
			}
			a.printf("tasker %s\n", build)
			return nil
		},
	}
}
