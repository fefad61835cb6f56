package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func (a *app) dlqCommand() *cobra.Command {
	return group("dlq", "Show, replay and discard dead letters",
		"Show, replay and discard dead letters.\n\nDead letters are messages that cannot be processed, and steps that have failed for good.",
		a.dlqListCommand(), a.dlqShowCommand(),
		a.letterCommand("replay", "Replay dead letters: send messages and run failed steps again",
			"Name dead letters by their numbers, or use --all for every open one that the filters select. A message goes back to the queue it "+
				"came from. A step starts a new generation, as with 'tasker step retry'.",
			(*client.Client).ReplayLetter, (*client.Client).ReplayLetters),
		a.letterCommand("discard", "Close dead letters without acting on them",
			"Name dead letters by their numbers, or use --all for every open one that the filters select. Closed dead letters can still be shown.",
			(*client.Client).DiscardLetter, (*client.Client).DiscardLetters))
}

func letterFlags(cmd *cobra.Command, f *client.LetterFilter) {
	cmd.Flags().StringVar(&f.Kind, "kind", "", "select only this kind: message or step")
	cmd.Flags().StringVar(&f.Reason, "reason-is", "", "select only this reason, such as attempts_exhausted")
	cmd.Flags().StringVar(&f.Queue, "queue", "", "select only messages of this queue")
	cmd.Flags().StringVar(&f.Namespace, "namespace", "", "select only this namespace")
	cmd.Flags().StringVar(&f.OlderThan, "older-than", "", "select only those older than this, such as 24h")
}

func (a *app) dlqListCommand() *cobra.Command {
	var f client.LetterFilter
	cmd := &cobra.Command{Use: "list", Short: "List dead letters, newest first", Args: arguments(0, 0, "")}
	letterFlags(cmd, &f)
	cmd.Flags().BoolVar(&f.Closed, "closed", false, "include closed dead letters")
	limitFlag(cmd, &f.Limit, 50, 500, "maximum number of dead letters")
	cmd.Flags().StringVar(&f.Cursor, "cursor", "", "continue a list from its next_cursor")
	cmd.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		page, err := c.DeadLetters(ctx, f)
		return a.answer(page, err, func() { a.listLetters(page) })
	})
	return cmd
}

func (a *app) listLetters(page readmodel.DeadLetterPage) {
	if len(page.Items) == 0 {
		a.printf("no dead letters\n")
		return
	}
	var t table
	t.header("ID", "CREATED", "OF", "REASON", "DETAIL", "CLOSED")
	for i := range page.Items {
		l := &page.Items[i]
		closed := ""
		if l.Closed != nil {
			closed = l.Closed.As
		}
		t.add(text(strconv.FormatInt(l.ID, 10)), text(when(l.CreatedAt)), text(letterOf(l)), text(l.Reason), text(l.Detail), text(closed))
	}
	a.printTable(&t)
	if page.NextCursor != "" {
		a.printf("more: --cursor %s\n", page.NextCursor)
	}
}

// letterOf says what a dead letter is about.
func letterOf(l *readmodel.DeadLetter) string {
	if l.Kind == "step" {
		return fmt.Sprintf("step %s/%s", l.TaskUUID, l.Step)
	}
	return fmt.Sprintf("message %d of %s", l.MessageID, l.Queue)
}

func letterArguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := arguments(least, most, "the ID of a dead letter; 'tasker dlq list' shows them")(cmd, args); err != nil {
			return err
		}
		for _, arg := range args {
			if n, err := strconv.ParseInt(arg, 10, 64); err != nil || n < 1 {
				return fmt.Errorf("%.40q is not the number of a dead letter", arg)
			}
		}
		return nil
	}
}

func (a *app) dlqShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a dead letter, its body and what was done with it", Args: letterArguments(1, 1),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			l, err := c.DeadLetter(ctx, args[0])
			if err != nil {
				return err
			}
			view := letterView{DeadLetter: l}
			if l.StepUUID != "" {
				if view.History, err = stepHistory(ctx, c, l.TaskUUID, l.StepUUID); err != nil {
					return err
				}
			}
			if a.json {
				return a.printJSON(view)
			}
			a.showLetter(&view)
			return nil
		}),
	}
}

// letterView is a dead letter with the history of its step, as --json prints it.
type letterView struct {
	readmodel.DeadLetter
	History []readmodel.Transition `json:"history,omitempty"`
}

func stepHistory(ctx context.Context, c *client.Client, task, step string) ([]readmodel.Transition, error) {
	all, err := c.History(ctx, task)
	if err != nil {
		return nil, err
	}
	var own []readmodel.Transition
	for i := range all {
		if all[i].StepUUID == step {
			own = append(own, all[i])
		}
	}
	return own, nil
}

func (a *app) showLetter(v *letterView) {
	var f facts
	l := &v.DeadLetter
	f.add("Dead letter", text(strconv.FormatInt(l.ID, 10)))
	f.add("Of", text(letterOf(l)))
	f.add("Reason", text(l.Reason))
	f.add("Detail", cell{text: oneLine(l.Detail), colour: red})
	f.add("Created", text(when(l.CreatedAt)))
	if c := l.Closed; c != nil {
		closed := c.As + " " + when(c.At)
		if c.By != "" {
			closed += " by " + c.By
		}
		if c.Reason != "" {
			closed += ": " + c.Reason
		}
		f.add("Closed", text(closed))
	}
	f.add("Headers", text(compact(l.Headers)))
	f.add("Body", text(compact(l.Body)))
	a.printTable(&f.table)
	if len(v.History) > 0 {
		a.printf("\n")
		a.printHistory(v.History)
	}
}

// letterCommand makes a command that acts on dead letters, by number or by filter.
func (a *app) letterCommand(verb, short, long string,
	one func(*client.Client, context.Context, string, client.Operator) (readmodel.DeadLetter, error),
	batch func(*client.Client, context.Context, client.LetterFilter, client.Operator) (readmodel.LetterBatch, error),
) *cobra.Command {
	var f client.LetterFilter
	var o client.Operator
	var all bool
	cmd := &cobra.Command{
		Use: verb + " {ID... | --all}", Short: short, Long: summed(short, long),
		Example: "  tasker dlq " + verb + " 17 18\n  tasker dlq " + verb + " --all --namespace shop --reason-is attempts_exhausted",
		Args: func(cmd *cobra.Command, args []string) error {
			switch filtered := filterChanged(cmd); {
			case all && len(args) > 0:
				return fmt.Errorf("numbers and --all exclude each other: give one")
			case !all && filtered != "":
				return fmt.Errorf("--%s goes with --all", filtered)
			case all:
				return nil
			}
			return letterArguments(1, -1)(cmd, args)
		},
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if all {
				return a.letterBatches(ctx, func(cursor string) (readmodel.LetterBatch, error) {
					f.Cursor = cursor
					return batch(c, ctx, f, o)
				})
			}
			for _, id := range args {
				l, err := one(c, ctx, id, o)
				if err != nil {
					return err
				}
				if a.json {
					err = a.printLine(l)
				} else {
					a.printf("%d %s (%s)\n", l.ID, l.Closed.As, oneLine(letterOf(&l)))
				}
				if err != nil {
					return err
				}
			}
			return nil
		}),
	}
	letterFlags(cmd, &f)
	cmd.Flags().BoolVar(&all, "all", false, "act on all open dead letters that the other flags select")
	a.operatorFlags(cmd, &o)
	return cmd
}

// filterChanged returns the first flag of letterFlags that was given.
func filterChanged(cmd *cobra.Command) string {
	for _, name := range []string{"kind", "reason-is", "queue", "namespace", "older-than"} {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

// letterBatches continues until none is left, and shows its progress.
func (a *app) letterBatches(ctx context.Context, next func(cursor string) (readmodel.LetterBatch, error)) error {
	sum := readmodel.LetterBatch{}
	for cursor := ""; ; {
		b, err := next(cursor)
		if err != nil {
			return err
		}
		sum.Done += b.Done
		sum.Failed = append(sum.Failed, b.Failed...)
		if b.NextCursor == "" || ctx.Err() != nil {
			break
		}
		if cursor = b.NextCursor; a.terminal && !a.json {
			a.printf("\r%d done, %d refused …", sum.Done, len(sum.Failed))
		}
	}
	if a.json {
		if err := a.printJSON(sum); err != nil {
			return err
		}
	} else {
		if a.terminal {
			a.printf("\r\x1b[K")
		}
		a.printf("%d done, %d refused\n", sum.Done, len(sum.Failed))
		for _, f := range sum.Failed {
			a.printf("%s %s\n", a.paint(red, "refused:"), oneLine(f.Detail))
		}
	}
	if len(sum.Failed) > 0 {
		return errShown
	}
	return nil
}
