package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/payload"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func (a *app) taskCommand() *cobra.Command {
	return group("task", "Submit, watch, repair and cancel tasks", "",
		a.submitCommand(), a.showCommand(), a.listCommand(), a.watchCommand(), a.cancelCommand(),
		a.retryTaskCommand(), a.resolveTaskCommand(), a.explainTaskCommand())
}

// submitFlags are the flags of task submit.
type submitFlags struct {
	input, context          string
	priority                int
	tags                    []string
	key                     string
	initiator, sourceSystem string
	reason                  string
	watch                   bool
	bulk, refused           string
}

func (a *app) submitCommand() *cobra.Command {
	var f submitFlags
	cmd := &cobra.Command{
		Use:   "submit NAMESPACE/NAME[@VERSION] | --bulk FILE",
		Short: "Submit one or many tasks",
		Long: "Submit a task and print its identifier. Without a version, the highest one is used. The input is a JSON object; the " +
			"default is {}.\n\n" +
			"--bulk submits any number of tasks. The file has a line of JSON for each task, with namespace, name, context and the other " +
			"fields that the API accepts. A refused line does not affect the others; the command then exits with 10. If the connection is " +
			"lost or the host is overloaded, the command waits and continues. Submitting the same file again with the same " +
			"--idempotency-key creates no task twice. --json prints a line for each line of the file, and one with the totals.",
		Example: "  tasker task submit linear_workflow/mathematical_sequence --context '{\"even_number\": 6}' --watch\n" +
			"  tasker task submit fulfillment/process_order@1.0.0 --input order.json --idempotency-key order-17\n" +
			"  tasker task submit --bulk orders.ndjson --refused refused.ndjson",
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("bulk") {
				return arguments(0, 0, "")(cmd, args)
			}
			return arguments(1, 1, "NAMESPACE/NAME[@VERSION]")(cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.input, "input", "i", "", "file with the input, a JSON object; - is standard input")
	flags.StringVarP(&f.context, "context", "c", "", "the input, a JSON object")
	flags.IntVar(&f.priority, "priority", 0, "1 (low), 2 (normal), 3 (high) or 4 (urgent) (default: the template's)")
	flags.StringSliceVar(&f.tags, "tag", nil, "tag of the task; may be repeated")
	flags.StringVar(&f.key, "idempotency-key", "", "submitting with the same key again returns the same task; with --bulk, the same tasks")
	flags.StringVar(&f.initiator, "initiator", "", "who submits the task")
	flags.StringVar(&f.sourceSystem, "source-system", "", "system that the task is submitted for")
	flags.StringVar(&f.reason, "reason", "", "why the task is submitted")
	flags.BoolVarP(&f.watch, "watch", "w", false, "watch the task until it ends, then print its results")
	flags.StringVar(&f.bulk, "bulk", "", "file with a line of JSON for each task; - is standard input")
	flags.StringVar(&f.refused, "refused", "", "with --bulk: file to create for refused lines; it must not exist")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("bulk") {
			for _, single := range []string{"input", "context", "priority", "tag", "initiator", "source-system", "reason", "watch"} {
				if cmd.Flags().Changed(single) {
					return usagef("--%s is for a single task; with --bulk, each line describes its task", single)
				}
			}
			return a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
				return a.submitBulk(ctx, c, f)
			})(cmd, args)
		}
		if f.refused != "" {
			return usagef("--refused goes with --bulk")
		}
		s, err := a.submission(args[0], f)
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("priority") {
			s.Priority = &f.priority
		}
		return a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			return a.submit(ctx, c, s, f.watch)
		})(cmd, args)
	}
	return cmd
}

func (a *app) submission(ref string, f submitFlags) (client.Submission, error) {
	name, version, versioned := strings.Cut(ref, "@")
	namespace, name, ok := strings.Cut(name, "/")
	if !ok || namespace == "" || name == "" || (versioned && version == "") {
		return client.Submission{}, usagef("%q does not name a template: want NAMESPACE/NAME or NAMESPACE/NAME@VERSION", ref)
	}
	input, err := a.taskInput(f)
	if err != nil {
		return client.Submission{}, err
	}
	return client.Submission{
		Namespace: namespace, Name: name, Version: version, Context: input, Tags: f.tags,
		Initiator: f.initiator, SourceSystem: f.sourceSystem, Reason: f.reason, IdempotencyKey: f.key,
	}, nil
}

// taskInput reads the input and checks it as the host will, so that errors give the
// position in the user's own text.
func (a *app) taskInput(f submitFlags) (json.RawMessage, error) {
	source, data := "--context", []byte(f.context)
	switch {
	case f.input != "":
		source = f.input
		var err error
		if data, err = a.readInput(f.input); err != nil {
			return nil, err
		}
	case f.context == "":
		return json.RawMessage("{}"), nil
	}
	if err := payload.CheckObject(data, payload.ContextLimits()); err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return data, nil
}

// maxInput bounds what is read from a file; the host's own limit is lower.
const maxInput = 64 << 20

func (a *app) readInput(path string) ([]byte, error) {
	r := a.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read the input: %w", err)
		}
		defer func() { _ = f.Close() }()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read the input: %w", err) // which names the file
	}
	if len(data) > maxInput {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxInput)
	}
	return data, nil
}

func (a *app) submit(ctx context.Context, c *client.Client, s client.Submission, watch bool) error {
	task, created, err := c.Submit(ctx, s)
	if err != nil {
		return err
	}
	if !watch {
		if a.json {
			return a.printJSON(task)
		}
		a.printf("%s\n", submitted(task, created))
		return nil
	}
	if !a.json {
		a.printf("%s\n", submitted(task, created))
	}
	ended := a.watch(ctx, c, []string{task.UUID}, !a.json)
	if ended != nil && !taskFailed(ended) {
		return ended
	}
	if err := a.show(ctx, c, task.UUID, showResults); err != nil {
		return err
	}
	return ended
}

func submitted(t readmodel.Task, created bool) string {
	verb := "submitted"
	if !created {
		verb = "already submitted"
	}
	return fmt.Sprintf("%s %s (%s/%s %s)", verb, t.UUID, t.Namespace, t.Name, t.Version)
}

func (a *app) listCommand() *cobra.Command {
	var f client.TaskFilter
	var states []string
	cmd := &cobra.Command{Use: "list", Short: "List tasks, newest first", Args: arguments(0, 0, "")}
	cmd.Flags().StringSliceVar(&states, "state", nil, "show only these states: pending, in_progress, complete, error, cancelled, resolved_manually")
	cmd.Flags().StringVar(&f.Namespace, "namespace", "", "show only this namespace")
	cmd.Flags().StringVar(&f.Name, "name", "", "show only tasks of the template with this name")
	cmd.Flags().StringSliceVar(&f.Tags, "tag", nil, "show only tasks with this tag; if repeated, only tasks with all the tags")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]string{"pending", "in_progress", "complete", "error", "cancelled", "resolved_manually"},
		cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	_ = cmd.RegisterFlagCompletionFunc("tag", a.complete(-1, tagNames)) // the flag exists
	limitFlag(cmd, &f.Limit, 50, 500, "maximum number of tasks")
	cmd.Flags().StringVar(&f.Cursor, "cursor", "", "continue a list from its next_cursor")
	cmd.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		for _, s := range states {
			f.States = append(f.States, vocab.TaskState(s))
		}
		page, err := c.Tasks(ctx, f)
		return a.answer(page, err, func() { a.listTasks(page) })
	})
	return cmd
}

func (a *app) listTasks(page readmodel.TaskPage) {
	if len(page.Items) == 0 {
		a.printf("no tasks\n")
		return
	}
	var t table
	t.header("TASK", "TEMPLATE", "STATE", "PROGRESS", "CREATED", "TOOK")
	for i := range page.Items {
		item := &page.Items[i]
		t.add(text(item.UUID), text(item.Namespace+"/"+item.Name+" "+item.Version), stateCell(string(item.State)),
			text(fmt.Sprintf("%d/%d", item.Progress.Completed, item.Progress.Total)), text(when(item.CreatedAt)),
			text(a.lasting(item.StartedAt, item.CompletedAt)))
	}
	a.printTable(&t)
	if page.NextCursor != "" {
		a.printf("more: --cursor %s\n", page.NextCursor)
	}
}

func (a *app) cancelCommand() *cobra.Command {
	var reason string
	cmd := a.eachTask("cancel TASK...", "Cancel tasks", "", func(c *client.Client, ctx context.Context, id string) (readmodel.Task, error) {
		return c.Cancel(ctx, id, reason)
	})
	cmd.Flags().StringVar(&reason, "reason", "", "reason to record in the task's history")
	return cmd
}

// taskArguments wants the identifiers of one or more tasks.
func taskArguments(cmd *cobra.Command, args []string) error {
	if err := arguments(1, -1, "a TASK's identifier")(cmd, args); err != nil {
		return err
	}
	for _, arg := range args {
		if _, err := vocab.ParseUUID(arg); err != nil {
			return err
		}
	}
	return nil
}
