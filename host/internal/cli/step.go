package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const stepHelp = `A STEP is its identifier, or TASK/NAME: the identifier of its task and the name of the step.`

func (a *app) stepCommand() *cobra.Command {
	return group("step", "Show and repair steps", "Show and repair steps.\n\n"+stepHelp,
		a.stepShowCommand(), a.explainStepCommand(), a.stepRetryCommand(), a.stepResolveCommand(), a.stepSkipCommand())
}

// stepArguments wants at least one step, and at most the given number; -1: any number.
func stepArguments(most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := arguments(1, most, "a STEP: its identifier, or TASK/NAME")(cmd, args); err != nil {
			return err
		}
		for _, arg := range args {
			id, name, named := strings.Cut(arg, "/")
			u, err := vocab.ParseUUID(id)
			if err != nil {
				return err
			}
			switch _, _, step := vocab.SplitStepID(u); {
			case !named && !step:
				return fmt.Errorf("%s names a task; add the step: %s/NAME", arg, arg)
			case named && (step || name == ""):
				return fmt.Errorf("%q does not name a step: want its identifier, or TASK/NAME", arg)
			}
		}
		return nil
	}
}

// stepUUID returns the identifier of the step that a valid argument names.
func stepUUID(ctx context.Context, c *client.Client, arg string) (string, error) {
	task, name, named := strings.Cut(arg, "/")
	if !named {
		return arg, nil
	}
	steps, err := c.Steps(ctx, task)
	if err != nil {
		return "", err
	}
	names := make([]string, len(steps))
	for i := range steps {
		if names[i] = steps[i].Name; names[i] == name {
			return steps[i].UUID, nil
		}
	}
	return "", &notFoundError{fmt.Errorf("task %s has no step %q; it has %s", task, name, strings.Join(names, ", "))}
}

// operatorFlags adds the flags of commands with which operators repair.
func (a *app) operatorFlags(cmd *cobra.Command, o *client.Operator) {
	cmd.Flags().StringVar(&o.Reason, "reason", "", "reason to record in the history")
	cmd.Flags().StringVar(&o.By, "by", "", "a name to add to your principal in the history; ignored if you use a token, which already says who you are")
}

// eachStep makes a command that acts on each of its steps.
func (a *app) eachStep(use, short, long string, do func(*client.Client, context.Context, string, client.Operator) (readmodel.Step, error)) *cobra.Command {
	var o client.Operator
	cmd := &cobra.Command{
		Use: use, Short: short, Long: summed(short, long), Args: stepArguments(-1),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			for _, arg := range args {
				id, err := stepUUID(ctx, c, arg)
				if err != nil {
					return err
				}
				step, err := do(c, ctx, id, o)
				if err != nil {
					return err // which names the step
				}
				if err := a.printStepLine(&step); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	a.operatorFlags(cmd, &o)
	return cmd
}

func (a *app) printStepLine(s *readmodel.Step) error {
	if a.json {
		return a.printLine(s)
	}
	a.printf("%s %s %s\n", s.UUID, oneLine(s.Name), a.paint(stateColour(string(s.State)), string(s.State)))
	return nil
}

func (a *app) stepRetryCommand() *cobra.Command {
	return a.eachStep("retry STEP...", "Run failed steps again",
		"Each step starts a new generation: its attempts and claims start at zero, it gets a new idempotency key, and its history is kept. "+
			"A task that failed continues.\n\n"+stepHelp, (*client.Client).RetryStep)
}

func (a *app) stepSkipCommand() *cobra.Command {
	return a.eachStep("skip STEP...", "Continue without steps that the template marks as skippable",
		"The step becomes resolved_manually, and its children see null as its result.\n\n"+stepHelp, (*client.Client).SkipStep)
}

func (a *app) stepResolveCommand() *cobra.Command {
	var o client.Operator
	var result string
	cmd := &cobra.Command{
		Use: "resolve STEP", Short: "Declare a step done, with a result", Args: stepArguments(1),
		Long: "Declare a step done, with a result.\n\nThe step must have failed, be enqueued, or be waiting for its next attempt. It becomes resolved_manually, its children " +
			"run and see the result, and its task continues.\n\n" + stepHelp,
		Example: `  tasker step resolve 01a2072d-6063-7560-8715-3182fcc00000/charge --result '{"payment": "p-17"}' --reason "paid by phone"`,
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			raw := json.RawMessage(result)
			if err := payload.Check(raw, payload.ResultLimits()); err != nil {
				return fmt.Errorf("--result: %w", err)
			}
			id, err := stepUUID(ctx, c, args[0])
			if err != nil {
				return err
			}
			step, err := c.ResolveStep(ctx, id, raw, o)
			if err != nil {
				return err
			}
			return a.printStepLine(&step)
		}),
	}
	cmd.Flags().StringVar(&result, "result", "null", "the step's result: any JSON value")
	a.operatorFlags(cmd, &o)
	return cmd
}

func (a *app) stepShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show STEP", Short: "Show a step and its result", Long: "Show a step and its result.\n\n" + stepHelp, Args: stepArguments(1),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			id, err := stepUUID(ctx, c, args[0])
			if err != nil {
				return err
			}
			step, err := c.Step(ctx, id)
			return a.answer(step, err, func() { a.showStep(&step) })
		}),
	}
}

// showStep prints the facts about a step, one per line.
func (a *app) showStep(s *readmodel.Step) {
	var f facts
	f.add("Step", text(s.UUID))
	f.add("Name", text(s.Name))
	f.add("Task", text(s.TaskUUID))
	f.add("Handler", text(s.Handler))
	f.add("State", stateCell(string(s.State)))
	if p := s.Progress; p != nil {
		f.add("Progress", text(strings.TrimSpace(fmt.Sprintf("%d%% %s", p.Percent, p.Note))))
	}
	f.add("After", text(strings.Join(s.Parents, ", ")))
	attempts := fmt.Sprintf("%d of %d, claimed %d times", s.Attempts, s.MaxAttempts, s.Claims)
	f.add("Attempts", text(attempts))
	if s.Generation > 0 {
		f.add("Generation", text(strconv.Itoa(s.Generation)+" (run again by an operator)"))
	}
	if s.Skippable {
		f.add("Skippable", text("yes"))
	}
	if s.DueAt != nil {
		f.add("Due", text(when(*s.DueAt)))
	}
	if s.StartedAt != nil {
		f.add("Started", text(when(*s.StartedAt)))
	}
	f.add("Took", text(a.lasting(s.StartedAt, s.FinishedAt)))
	if l := s.Lease; l != nil {
		lease := l.Holder
		if l.ExpiresAt != nil {
			lease += " until " + when(*l.ExpiresAt)
		}
		f.add("Lease", text(lease))
	}
	f.add("Error", cell{text: oneLine(errorText(s.Error)), colour: red})
	f.add("Metadata", text(compact(s.Metadata)))
	a.printTable(&f.table)
	if s.Result != nil {
		a.printf("%s %s\n", a.paint(grey, "Result"), compact(s.Result))
	}
}

func (a *app) retryTaskCommand() *cobra.Command {
	return a.repairTask("retry TASK...", "Run all failed steps of tasks again",
		"Each failed step starts a new generation: its attempts and claims start at zero, it gets a new idempotency key, and its history "+
			"is kept. The task continues.", (*client.Client).RetryTask)
}

func (a *app) resolveTaskCommand() *cobra.Command {
	return a.repairTask("resolve TASK...", "Declare tasks done, whatever happened to their steps",
		"Unfinished steps of the task are cancelled, and the task becomes resolved_manually.", (*client.Client).ResolveTask)
}

func (a *app) repairTask(use, short, long string, do func(*client.Client, context.Context, string, client.Operator) (readmodel.Task, error)) *cobra.Command {
	var o client.Operator
	cmd := a.eachTask(use, short, long, func(c *client.Client, ctx context.Context, id string) (readmodel.Task, error) {
		return do(c, ctx, id, o)
	})
	a.operatorFlags(cmd, &o)
	return cmd
}

// eachTask makes a command that acts on each of its tasks.
func (a *app) eachTask(use, short, long string, do func(*client.Client, context.Context, string) (readmodel.Task, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: summed(short, long), Args: taskArguments,
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			for _, id := range args {
				task, err := do(c, ctx, id)
				if err != nil {
					return err // which names the task
				}
				if err := a.printTaskLine(&task); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func (a *app) printTaskLine(t *readmodel.Task) error {
	if a.json {
		return a.printLine(t)
	}
	a.printf("%s %s\n", t.UUID, a.paint(stateColour(string(t.State)), string(t.State)))
	return nil
}

// facts are names and values, one per line; empty values are left out.
type facts struct{ table }

func (f *facts) add(name string, value cell) {
	if value.text != "" {
		f.table.add(cell{text: name, colour: grey}, value)
	}
}
