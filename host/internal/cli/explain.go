package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

const (
	explainTask = "Explain why a task does not run, or that it does"
	explainStep = "Explain why a step does not run, or that it does"
)

const explainHelp = "The answer is one sentence, such as what it waits for and until when, that its queue is paused, that " +
	"nobody serves its handler, or who holds its lease. --json adds the cause as a stable word for programs."

func (a *app) explainTaskCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain TASK", Short: explainTask, Long: summed(explainTask, explainHelp),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("unexpected argument %q", args[1])
			}
			return taskArguments(cmd, args)
		},
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			e, err := c.ExplainTask(ctx, args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(e)
			}
			a.printExplanation(&e.Explanation)
			if len(e.Steps) > 0 {
				a.printf("\n")
				var t table
				t.header("STEP", "STATE", "CAUSE", "WHY")
				for i := range e.Steps {
					s := &e.Steps[i]
					t.add(text(s.Step), stateCell(s.State), text(string(s.Cause)), text(s.Text))
				}
				a.printTable(&t)
			}
			return nil
		}),
	}
}

func (a *app) explainStepCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain STEP", Short: explainStep, Long: summed(explainStep, explainHelp+"\n\n"+stepHelp), Args: stepArguments(1),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			id, err := stepUUID(ctx, c, args[0])
			if err != nil {
				return err
			}
			e, err := c.ExplainStep(ctx, id)
			return a.answer(e, err, func() { a.printExplanation(&e) })
		}),
	}
}

func (a *app) printExplanation(e *readmodel.Explanation) {
	a.printf("%s: %s\n", a.paint(stateColour(e.State), oneLine(e.State)), oneLine(e.Text))
}
