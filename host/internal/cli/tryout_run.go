package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/tryout"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

const runHelp = `Start a plugin without a host, call it once, and stop it.

  handler   --input is a step: {"context": {…}, "config": {…}, "dependencies": {"step": …}, "timeout_ms": 5000}
  scaling   --input is an observation: {"current": 3, "min": 1, "max": 10, "samples": [{"queue_depth": 40,
            "arrivals": 120, "completions": 90, "utilization": 0.9, "latency_p95": "250ms", "span": "10s"}]}
  health    without --input, the plugin checks; with --input, it reports an event, which may reach people:
            {"kind": "alert", "severity": "warning", "message": "…"}

Fields left out of the input are empty or get a simple default. Exits with 1 if the call fails.`

func (a *app) pluginRunCommand() *cobra.Command {
	var flags tryoutFlags
	var slot, input string
	var patience time.Duration
	cmd := &cobra.Command{
		Use: "run PATH", Short: "Call a plugin once, without a host", Long: runHelp,
		Args: arguments(1, 1, "the PATH of a plugin"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if patience <= 0 {
				return usagef("--patience %s: want more than 0s", patience)
			}
			start, options, err := flags.start(a, args[0])
			if err != nil {
				return err
			}
			var raw []byte
			if input != "" {
				if raw, err = a.readInput(input); err != nil {
					return err
				}
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), patience,
				fmt.Errorf("no answer within %s; allow more time with --patience", patience))
			defer cancel()
			i, err := start(ctx)
			if err != nil {
				return err
			}
			defer i.Close()
			call, err := a.chooseCall(ctx, i, slot, raw)
			if err != nil {
				return err
			}
			if err := i.Configure(ctx, options); err != nil {
				return err
			}
			err = call(ctx)
			if cause := context.Cause(ctx); err != nil && cause != nil {
				return cause
			}
			return err
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&slot, "slot", "", "the handler, algorithm or health service to call; required if the plugin has several")
	cmd.Flags().StringVar(&input, "input", "", "file with the input; - is standard input")
	cmd.Flags().DurationVar(&patience, "patience", time.Minute, "how long the whole run may take")
	return cmd
}

// chooseCall finds the slot and reads the input for it.
func (a *app) chooseCall(ctx context.Context, i *tryout.Instance, name string, raw []byte) (func(context.Context) error, error) {
	d, err := i.Plugin.Describe(ctx, &pluginv1.DescribeRequest{})
	if err != nil {
		return nil, fmt.Errorf("describe: %w", err)
	}
	slot, err := chooseSlot(d.GetSlots(), name)
	if err != nil {
		return nil, err
	}
	switch slot.GetKind() {
	case wire.KindHandler:
		return a.stepCall(i, slot.GetName(), raw)
	case wire.KindScaling:
		return a.decisionCall(i, slot.GetName(), raw)
	case wire.KindHealth:
		return a.healthCall(i, slot, raw)
	default:
		return nil, fmt.Errorf("%s has the unsupported kind %s: want handler, scaling or health", slot.GetName(), slot.GetKind())
	}
}

func chooseSlot(slots []*pluginv1.Slot, name string) (*pluginv1.Slot, error) {
	var names []string
	for _, s := range slots {
		names = append(names, s.GetName())
	}
	switch i := slices.Index(names, name); {
	case name == "" && len(slots) == 1:
		return slots[0], nil
	case name == "":
		return nil, usagef("choose one with --slot: the plugin serves %s", strings.Join(names, ", "))
	case i < 0:
		return nil, usagef("the plugin does not serve %q; it serves %s", name, strings.Join(names, ", "))
	default:
		return slots[i], nil
	}
}

// stepView is the result of a step as --json prints it.
type stepView struct {
	Result   json.RawMessage `json:"result,omitempty"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
	Failure  *failedStep     `json:"failure,omitempty"`
	TookUs   uint32          `json:"took_us"`
}

type failedStep struct {
	Type         string          `json:"type"`
	Code         string          `json:"code,omitempty"`
	Message      string          `json:"message"`
	Retryable    bool            `json:"retryable"`
	RetryAfterMs uint32          `json:"retry_after_ms,omitempty"`
	Context      json.RawMessage `json:"context,omitempty"`
}

func (a *app) stepCall(i *tryout.Instance, name string, raw []byte) (func(context.Context) error, error) {
	var step tryout.Step
	if len(raw) > 0 {
		var err error
		if step, err = tryout.ParseStep(raw); err != nil {
			return nil, &usageError{err: err}
		}
	}
	progress := func(percent int, note string) {
		fmt.Fprintf(a.err, "%3d%% %s\n", percent, oneLine(note))
	}
	return func(ctx context.Context) error {
		o, err := i.Step(ctx, name, step, progress)
		if err != nil {
			return err
		}
		return a.showStepOutcome(o)
	}, nil
}

func (a *app) showStepOutcome(o *pluginv1.Outcome) error {
	v := stepView{Result: o.GetResult(), Metadata: o.GetMetadata(), TookUs: o.GetExecutionUs()}
	f := o.GetFailure()
	if f != nil {
		v.Result = nil
		v.Failure = &failedStep{
			Type: f.GetType(), Code: f.GetCode(), Message: f.GetMessage(), Retryable: f.GetRetryable(),
			RetryAfterMs: f.GetRetryAfterMs(), Context: f.GetContext(),
		}
	} else if len(v.Result) == 0 {
		v.Result = json.RawMessage("null")
	}
	for what, part := range map[string]json.RawMessage{"result": v.Result, "metadata": v.Metadata} {
		if len(part) > 0 && !json.Valid(part) {
			return fmt.Errorf("the %s is not JSON: %.200q", what, part)
		}
	}
	switch {
	case a.json:
		if err := a.printJSON(v); err != nil {
			return err
		}
	case f == nil:
		a.printf("%s\n", printable(string(v.Result)))
	}
	if f == nil {
		return nil
	}
	if a.json {
		return errShown
	}
	again := "permanently"
	if f.GetRetryable() {
		again = "but may be retried"
	}
	return fmt.Errorf("the step failed, %s: %s", again, strings.Join(strings.Fields(f.GetType()+" "+f.GetCode()+" "+f.GetMessage()), " "))
}

// decisionView is a decision as --json prints it.
type decisionView struct {
	Target     int     `json:"target"`
	Reason     string  `json:"reason"`
	Confidence float64 `json:"confidence"`
}

func (a *app) decisionCall(i *tryout.Instance, name string, raw []byte) (func(context.Context) error, error) {
	if len(raw) == 0 {
		return nil, usagef("an algorithm needs an observation: give --input (see --help)")
	}
	o, err := tryout.ParseObservation(raw)
	if err != nil {
		return nil, &usageError{err: err}
	}
	return func(ctx context.Context) error {
		d, err := i.Decide(ctx, name, o)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(decisionView(d))
		}
		a.printf("target %d (now %d), confidence %.2g: %s\n", d.Target, o.Current, d.Confidence, oneLine(d.Reason))
		return nil
	}, nil
}

// healthView is the result of a check as --json prints it.
type healthView struct {
	Name    string         `json:"name"`
	Status  string         `json:"status"`
	Message string         `json:"message,omitempty"`
	Data    map[string]any `json:"data,omitempty"`
}

func (a *app) healthCall(i *tryout.Instance, slot *pluginv1.Slot, raw []byte) (func(context.Context) error, error) {
	name := slot.GetName()
	if len(raw) > 0 {
		if !slices.Contains(slot.GetAbilities(), wire.AbilityReport) {
			return nil, usagef("%s takes no events: leave out --input to run its checks", name)
		}
		event, err := tryout.ParseEvent(raw)
		if err != nil {
			return nil, &usageError{err: err}
		}
		return func(ctx context.Context) error {
			if err := i.Report(ctx, name, event); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]bool{"accepted": true})
			}
			a.printf("accepted\n")
			return nil
		}, nil
	}
	if !slices.Contains(slot.GetAbilities(), wire.AbilityCheck) {
		return nil, usagef("%s only reports: give it an event with --input, such as a file that contains {}", name)
	}
	return func(ctx context.Context) error { return a.runCheck(ctx, i, name) }, nil
}

func (a *app) runCheck(ctx context.Context, i *tryout.Instance, name string) error {
	checks, err := i.CheckHealth(ctx, name)
	if err != nil {
		return err
	}
	views := make([]healthView, len(checks))
	var t table
	t.header("CHECK", "STATUS", "MESSAGE", "DATA")
	for n, c := range checks {
		views[n] = healthView{Name: c.Name, Status: string(c.Status), Message: c.Message, Data: c.Data}
		data := ""
		if len(c.Data) > 0 {
			raw, err := json.Marshal(c.Data)
			if err != nil {
				return fmt.Errorf("show check %s: %w", c.Name, err)
			}
			data = string(raw)
		}
		t.add(text(c.Name), stateCell(string(c.Status)), text(c.Message), text(data))
	}
	if a.json {
		return a.printJSON(views)
	}
	a.printTable(&t)
	return nil
}
