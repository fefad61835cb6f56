package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/scaling/builtin"
	"github.com/tasker-systems/tasker-host/scaling/sim"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
	"github.com/tasker-systems/tasker-host/sdk/tryout"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

func (a *app) scaleCommand() *cobra.Command {
	return group("scale", "Explain the sizes of pools, and try algorithms on recorded loads", "See why pools have their sizes, record a load, and replay it on a simulated pool to see how algorithms handle it.",
		a.simulateCommand(), a.tracesCommand(), a.generateTraceCommand(), a.scaleHistoryCommand(), a.scaleRecordCommand())
}

// simulation holds the options of the command simulate.
type simulation struct {
	algorithms []string
	trace      string
	plot       string
	config     sim.Config
}

func (a *app) simulateCommand() *cobra.Command {
	s := &simulation{config: sim.DefaultConfig()}
	cmd := &cobra.Command{
		Use: "simulate", Short: "Replay a load through scaling algorithms", Args: arguments(0, 0, ""),
		Long: "Replay a load through scaling algorithms and the policy that limits their advice, each on its own simulated pool.\n\n" +
			"An algorithm is given by name ('tasker scale traces' lists the names), optionally with options as JSON: " +
			"'rate={\"drain\":\"2m\"}'. A value with a slash is the path of a scaling plugin to run: './bin/plugins/mine', or " +
			"'./bin/plugins/mine#NAME' if it serves several algorithms.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.simulate(cmd.Context(), s) },
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&s.algorithms, "algorithm", "a", nil, "an algorithm to simulate; repeat the flag or separate values with commas for several")
	flags.StringVarP(&s.trace, "trace", "t", "", "the load: a file, '-' for standard input, or the name of an included trace")
	flags.StringVar(&s.plot, "plot", "", "draw the load, the backlog and the sizes to this SVG file")
	flags.IntVar(&s.config.Min, "min", s.config.Min, "minimum number of executors")
	flags.IntVar(&s.config.Max, "max", s.config.Max, "maximum number of executors")
	flags.IntVar(&s.config.Budget, "budget", 0, "number of executors that the host's resources allow (0: unknown)")
	flags.DurationVar(&s.config.Interval, "interval", s.config.Interval, "time between two decisions")
	flags.DurationVar(&s.config.StartDelay, "start-delay", s.config.StartDelay, "time that a new executor needs to start")
	flags.DurationVar(&s.config.LatencyTarget, "latency", s.config.LatencyTarget, "work that takes longer than this counts as late")
	flags.Uint64Var(&s.config.Seed, "seed", s.config.Seed, "seed of the random numbers")
	flags.BoolVar(&s.config.Equal, "equal", false, "all work that arrives together takes the same time, instead of exponentially distributed times")
	policyFlags(flags.DurationVar, flags.IntVar, flags.Float64Var, &s.config.Policy)
	return cmd
}

// policyFlags makes a flag for each rule of the policy.
func policyFlags(
	duration func(*time.Duration, string, time.Duration, string), number func(*int, string, int, string),
	share func(*float64, string, float64, string), p *scaling.Policy,
) {
	number(&p.StepUp, "step-up", p.StepUp, "maximum number of executors added at once (0: no limit)")
	number(&p.StepDown, "step-down", p.StepDown, "maximum number of executors removed at once (0: no limit)")
	share(&p.DeadBand, "dead-band", p.DeadBand, "ignore differences up to this share of the size")
	for _, d := range []struct {
		at          *scaling.Duration
		name, usage string
	}{
		{&p.CooldownUp, "cooldown-up", "after a change, do not grow for this long"},
		{&p.CooldownDown, "cooldown-down", "after a change, do not shrink for this long"},
		{&p.Stabilization, "stabilization", "do not shrink below the largest advice in this window"},
		{&p.Reversal, "reversal", "switch between growing and shrinking at most once in this window"},
	} {
		duration((*time.Duration)(d.at), d.name, d.at.D(), d.usage)
	}
}

// byFlag names the flags that set the wrong values of a simulation's configuration.
func byFlag(err error) error {
	var errs []error
	for _, p := range scaling.Problems(err) {
		name := strings.ReplaceAll(strings.TrimPrefix(p.Path, "/"), "_", "-")
		if name == "latency-target" {
			name = "latency"
		}
		errs = append(errs, fmt.Errorf("--%s: %s", name, p.Message))
	}
	return errors.Join(errs...)
}

func (a *app) simulate(ctx context.Context, s *simulation) error {
	names := splitAlgorithms(s.algorithms)
	switch {
	case len(names) == 0:
		return usagef("--algorithm is required: want one such as %s", strings.Join(algorithmNames(), ", "))
	case s.trace == "":
		return usagef("--trace is required: want a file or one of %s", strings.Join(shapeNames(), ", "))
	}
	if err := s.config.Check(); err != nil {
		return &usageError{err: byFlag(err)}
	}
	trace, err := a.readTrace(s.trace)
	if err != nil {
		return err
	}
	results := make([]*sim.Result, 0, len(names))
	for _, name := range names {
		result, err := a.replay(ctx, s.config, trace, name)
		if err != nil {
			return fmt.Errorf("algorithm %s: %w", name, err)
		}
		results = append(results, result)
	}
	if s.plot != "" {
		if err := writeFile(s.plot, func(w io.Writer) error { return sim.Plot(w, trace, results) }); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"trace": trace.Name, "results": results})
	}
	a.showResults(trace, results, s)
	return nil
}

// replay runs one algorithm, by name or from a plugin.
func (a *app) replay(ctx context.Context, c sim.Config, t *sim.Trace, name string) (*sim.Result, error) {
	spec, options, _ := strings.Cut(name, "=")
	if !strings.Contains(spec, "/") {
		algorithm, err := builtin.New(spec, []byte(options))
		if err != nil {
			return nil, &usageError{err: err}
		}
		return sim.Run(ctx, c, t, sim.Algorithm{Name: spec, Scaler: algorithm()})
	}
	path, algorithm, _ := strings.Cut(spec, "#")
	plugin, err := tryout.Process(path)(ctx)
	if err != nil {
		return nil, err
	}
	defer plugin.Close()
	if algorithm, err = findAlgorithm(ctx, plugin, path, algorithm); err != nil {
		return nil, err
	}
	if err := plugin.Configure(ctx, []byte(options)); err != nil {
		return nil, err
	}
	return sim.Run(ctx, c, t, sim.Algorithm{Name: algorithm, Scaler: scaler.Func(
		func(ctx context.Context, o scaler.Observation) (scaler.Decision, error) {
			ctx, cancel := context.WithTimeout(ctx, decideTimeout)
			defer cancel()
			return plugin.Decide(ctx, algorithm, o)
		})})
}

// decideTimeout is how long a plugin may take for one decision.
const decideTimeout = 5 * time.Second

// findAlgorithm returns the named algorithm, or the only one that the plugin serves.
func findAlgorithm(ctx context.Context, plugin *tryout.Instance, path, name string) (string, error) {
	d, err := plugin.Plugin.Describe(ctx, &pluginv1.DescribeRequest{})
	if err != nil {
		return "", fmt.Errorf("describe: %w", err)
	}
	var served []string
	for _, slot := range d.GetSlots() {
		if slot.GetKind() == wire.KindScaling {
			served = append(served, slot.GetName())
		}
	}
	switch {
	case len(served) == 0:
		return "", errors.New("the plugin serves no scaling algorithm")
	case name == "" && len(served) == 1:
		return served[0], nil
	case !slices.Contains(served, name):
		return "", usagef("the plugin serves several algorithms: want %s#NAME with one of %s", path, strings.Join(served, ", "))
	}
	return name, nil
}

// splitAlgorithms splits comma-separated values; commas within options stay.
func splitAlgorithms(values []string) (names []string) {
	for _, value := range values {
		depth, from := 0, 0
		for i, r := range value {
			switch r {
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			case ',':
				if depth == 0 {
					names = append(names, value[from:i])
					from = i + 1
				}
			}
		}
		names = append(names, value[from:])
	}
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// readTrace reads a file, or returns an included trace.
func (a *app) readTrace(name string) (*sim.Trace, error) {
	if name == "-" {
		return sim.ReadTrace("standard input", a.in)
	}
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) && slices.Contains(shapeNames(), name) {
		return sim.LoadTrace(name)
	}
	if err != nil {
		return nil, usagef("--trace: %w: want a file or one of %s", err, strings.Join(shapeNames(), ", "))
	}
	defer func() { _ = file.Close() }()
	return sim.ReadTrace(name, file)
}

func writeFile(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(write(file), file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (a *app) showResults(t *sim.Trace, results []*sim.Result, s *simulation) {
	a.printf("trace %s: %s in rows of %s; work that takes longer than %s is late\n",
		oneLine(t.Name), t.Length(), t.Interval, s.config.LatencyTarget)
	var rows table
	rows.header("ALGORITHM", "EXECUTOR HOURS", "MEAN", "MOST", "LATE", "P50", "P95", "P99", "BACKLOG", "CHANGES", "TURNS/MIN", "REACTION")
	for _, r := range results {
		reaction := "-"
		if r.ReactionMax > 0 {
			reaction = fmt.Sprintf("%.0f s (most %.0f)", r.ReactionMean, r.ReactionMax)
		}
		rows.add(
			text(r.Algorithm), text(fixed(r.ExecutorSeconds/3600, 1)), text(fixed(r.MeanSize, 2)), text(strconv.Itoa(r.MaxSize)),
			text(fixed(100*r.LateShare, 2)+"%"), text(fixed(r.LatencyP50, 1)+" s"), text(fixed(r.LatencyP95, 1)+" s"), text(fixed(r.LatencyP99, 1)+" s"),
			text(strconv.Itoa(r.MaxBacklog)), text(strconv.Itoa(r.Changes)), text(fixed(r.ReversalsPerMinute, 3)), text(reaction),
		)
	}
	a.printTable(&rows)
	for _, r := range results {
		if r.Held > 0 {
			a.printf("%s: %d of %d decisions kept the size; the last one: %s\n", oneLine(r.Algorithm), r.Held, r.Decisions, oneLine(r.LastHeldReason))
		}
	}
	if s.plot != "" {
		a.printf("drawn: %s\n", s.plot)
	}
}

func fixed(v float64, digits int) string { return strconv.FormatFloat(v, 'f', digits, 64) }

func (a *app) tracesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "traces", Short: "List the included traces and algorithms", Args: arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			type named struct {
				Name    string `json:"name"`
				Summary string `json:"summary"`
			}
			var traces, algorithms []named
			for _, s := range sim.Shapes() {
				traces = append(traces, named{s.Name, s.Summary})
			}
			for _, b := range builtin.All() {
				algorithms = append(algorithms, named{b.Name, b.Summary})
			}
			if a.json {
				return a.printJSON(map[string]any{"traces": traces, "algorithms": algorithms})
			}
			var rows table
			for _, t := range traces {
				rows.add(cell{text: "trace", colour: grey}, text(t.Name), text(t.Summary))
			}
			for _, b := range algorithms {
				rows.add(cell{text: "algorithm", colour: grey}, text(b.Name), text(b.Summary))
			}
			a.printTable(&rows)
			return nil
		},
	}
}

func (a *app) generateTraceCommand() *cobra.Command {
	var seed uint64
	var out string
	cmd := &cobra.Command{
		Use: "generate-trace SHAPE", Short: "Generate a load and print it as a trace", Args: arguments(1, 1, "a SHAPE: "+strings.Join(shapeNames(), ", ")),
		Long: "Generate a load and print it as a trace. The same seed gives the same trace.",
		RunE: func(_ *cobra.Command, args []string) error {
			trace, err := sim.Generate(args[0], seed)
			if err != nil {
				return &usageError{err: err}
			}
			if out != "" {
				return writeFile(out, trace.Write)
			}
			return trace.Write(a.out)
		},
	}
	cmd.Flags().Uint64Var(&seed, "seed", sim.TraceSeed, "seed of the random numbers")
	cmd.Flags().StringVarP(&out, "output", "o", "", "write to this file (default: standard output)")
	return cmd
}

func algorithmNames() (names []string) {
	for _, b := range builtin.All() {
		names = append(names, b.Name)
	}
	return names
}

func shapeNames() (names []string) {
	for _, s := range sim.Shapes() {
		names = append(names, s.Name)
	}
	return names
}
