package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// showWhat says how much of a task is shown.
type showWhat int

const (
	showAll     showWhat = iota // the task, its steps and results
	showResults                 // what came of it
)

// taskView is a task with what is inside, as --json prints it.
type taskView struct {
	readmodel.Task
	Steps   []readmodel.Step       `json:"steps"`
	History []readmodel.Transition `json:"history,omitempty"`
}

func (a *app) showCommand() *cobra.Command {
	var history bool
	cmd := &cobra.Command{
		Use: "show TASK", Short: "Show a task, its steps and its results",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%q is one argument too many", args[1])
			}
			return taskArguments(cmd, args)
		},
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if !history {
				return a.show(ctx, c, args[0], showAll)
			}
			return a.showHistory(ctx, c, args[0])
		}),
	}
	cmd.Flags().BoolVar(&history, "history", false, "also what happened, in order")
	return cmd
}

func (a *app) show(ctx context.Context, c *client.Client, id string, what showWhat) error {
	v, err := load(ctx, c, id)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(v)
	}
	if what == showAll {
		a.showTask(&v.Task)
		a.printf("\n")
		a.showSteps(v.Steps)
	}
	a.showOutcome(v, what == showAll)
	return nil
}

func load(ctx context.Context, c *client.Client, id string) (*taskView, error) {
	task, err := c.Task(ctx, id)
	if err != nil {
		return nil, err
	}
	steps, err := c.Steps(ctx, id)
	if err != nil {
		return nil, err
	}
	return &taskView{Task: task, Steps: steps}, nil
}

func (a *app) showHistory(ctx context.Context, c *client.Client, id string) error {
	v, err := load(ctx, c, id)
	if err != nil {
		return err
	}
	if v.History, err = c.History(ctx, id); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(v)
	}
	a.showTask(&v.Task)
	a.printf("\n")
	a.showSteps(v.Steps)
	a.printf("\n")
	var t table
	t.header("AT", "WHAT", "FROM", "TO", "DETAILS")
	for _, h := range v.History {
		what := h.Step
		if what == "" {
			what = "(task)"
		}
		t.add(text(when(h.At)), text(what), text(h.From), stateCell(h.To), text(string(h.Metadata)))
	}
	a.printTable(&t)
	a.showOutcome(v, true)
	return nil
}

// showTask prints the facts of a task, one on a line.
func (a *app) showTask(task *readmodel.Task) {
	var t table
	fact := func(name string, value cell) {
		if value.text != "" {
			t.add(cell{text: name, colour: grey}, value)
		}
	}
	fact("Task", text(task.UUID))
	fact("Template", text(task.Namespace+"/"+task.Name+" "+task.Version))
	state := stateCell(string(task.State))
	if task.StateReason != "" {
		state.text += " (" + oneLine(task.StateReason) + ")"
	}
	fact("State", state)
	p := task.Progress
	fact("Progress", text(fmt.Sprintf("%d of %d steps complete (%s%%)", p.Completed, p.Total, strconv.FormatFloat(p.Percentage, 'f', -1, 64))))
	if task.Priority != 0 {
		fact("Priority", text(strconv.Itoa(task.Priority)))
	}
	fact("Created", text(when(task.CreatedAt)))
	fact("Took", text(a.lasting(task.StartedAt, task.CompletedAt)))
	fact("Tags", text(strings.Join(task.Tags, ", ")))
	fact("Initiator", text(task.Initiator))
	fact("Source", text(task.SourceSystem))
	fact("Reason", text(task.Reason))
	if e := task.Error; e != nil {
		fact("Error", cell{text: oneLine(failure(e)), colour: red})
	}
	fact("Context", text(compact(task.Context)))
	a.printTable(&t)
}

// failure says which step failed and why.
func failure(e *readmodel.TaskError) string {
	s := errorText(&e.StepError)
	if e.Step != "" {
		s = fmt.Sprintf("step %s, attempt %d: %s", e.Step, e.Attempts, s)
	}
	return s
}

func errorText(e *readmodel.StepError) string {
	if e == nil {
		return ""
	}
	s := string(e.Type)
	if e.Code != "" {
		s += " " + e.Code
	}
	return s + ": " + e.Message
}

func (a *app) showSteps(steps []readmodel.Step) {
	var t table
	t.header("#", "STEP", "HANDLER", "STATE", "ATTEMPTS", "TOOK", "AFTER", "ERROR")
	for i := range steps {
		s := &steps[i]
		state := stateCell(string(s.State))
		if s.DueAt != nil && s.State == "pending" {
			state.text += " until " + when(*s.DueAt)
		}
		t.add(text(strconv.Itoa(s.Number)), text(s.Name), text(s.Handler), state,
			text(fmt.Sprintf("%d/%d", s.Attempts, s.MaxAttempts)), text(a.lasting(s.StartedAt, s.FinishedAt)),
			text(strings.Join(s.Parents, ", ")), text(errorText(s.Error)))
	}
	a.printTable(&t)
}

// showOutcome prints the results of the steps at the end of the graph, every
// digit of them, or why there are none.
func (a *app) showOutcome(v *taskView, below bool) {
	if v.Error != nil && !below {
		a.printf("%s %s\n", a.paint(red, string(v.State)), oneLine(failure(v.Error)))
	}
	parents := map[string]bool{}
	for _, s := range v.Steps {
		for _, p := range s.Parents {
			parents[p] = true
		}
	}
	last := slices.DeleteFunc(slices.Clone(v.Steps), func(s readmodel.Step) bool { return parents[s.Name] || s.Result == nil })
	if len(last) > 0 && below {
		a.printf("\n%s\n", a.paint(grey, "RESULT"))
	}
	for _, s := range last {
		a.printf("%s: %s\n", oneLine(s.Name), compact(s.Result))
	}
}

// compact prints JSON on one line, digit for digit, harmless for a terminal:
// JSON has no control characters outside of escapes, but other marks could
// turn the direction of writing.
func compact(raw json.RawMessage) string {
	if len(raw) == 0 {
		return ""
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return oneLine(string(raw))
	}
	return harmless(b.String())
}

func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == 0x7f, r >= 0x80 && r < 0xa0, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f:
			return '\ufffd'
		}
		return r
	}, s)
}
