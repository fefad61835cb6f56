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
	showResults                 // the results
)

// taskView is a task with its steps, as --json prints it.
type taskView struct {
	readmodel.Task
	Steps   []readmodel.Step       `json:"steps"`
	History []readmodel.Transition `json:"history,omitempty"`
}

func (a *app) showCommand() *cobra.Command {
	var history bool
	var form graphForm
	cmd := &cobra.Command{
		Use: "show TASK", Short: "Show a task, its steps and its results",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("unexpected argument %q", args[1])
			}
			return taskArguments(cmd, args)
		},
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if form.asked() {
				return a.showGraph(ctx, c, args[0], form)
			}
			if !history {
				return a.show(ctx, c, args[0], showAll)
			}
			return a.showHistory(ctx, c, args[0])
		}),
	}
	cmd.Flags().BoolVar(&history, "history", false, "also show what happened, in order")
	cmd.Flags().BoolVar(&form.box, "graph", false, "draw the graph of steps with states, times and errors instead")
	form.flags(cmd)
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
	a.printHistory(v.History)
	a.showOutcome(v, true)
	return nil
}

func (a *app) printHistory(history []readmodel.Transition) {
	var t table
	t.header("AT", "WHAT", "FROM", "TO", "DETAILS")
	for _, h := range history {
		what := h.Step
		if what == "" {
			what = "(task)"
		}
		details := string(h.Metadata)
		if h.PluginGeneration > 0 {
			details = strings.TrimSpace("plugin generation " + number(h.PluginGeneration) + " " + details)
		}
		t.add(text(when(h.At)), text(what), text(h.From), stateCell(h.To), text(details))
	}
	a.printTable(&t)
}

// showTask prints the facts about a task, one per line.
func (a *app) showTask(task *readmodel.Task) {
	var f facts
	f.add("Task", text(task.UUID))
	f.add("Template", text(task.Namespace+"/"+task.Name+" "+task.Version))
	state := stateCell(string(task.State))
	if task.StateReason != "" {
		state.text += " (" + oneLine(task.StateReason) + ")"
	}
	f.add("State", state)
	p := task.Progress
	f.add("Progress", text(fmt.Sprintf("%d of %d steps complete (%s%%)", p.Completed, p.Total, strconv.FormatFloat(p.Percentage, 'f', -1, 64))))
	if task.Priority != 0 {
		f.add("Priority", text(strconv.Itoa(task.Priority)))
	}
	f.add("Created", text(when(task.CreatedAt)))
	f.add("Took", text(a.lasting(task.StartedAt, task.CompletedAt)))
	f.add("Tags", text(strings.Join(task.Tags, ", ")))
	f.add("Initiator", text(task.Initiator))
	f.add("Source", text(task.SourceSystem))
	f.add("Reason", text(task.Reason))
	if e := task.Error; e != nil {
		f.add("Error", cell{text: oneLine(failure(e)), colour: red})
	}
	f.add("Context", text(compact(task.Context)))
	a.printTable(&f.table)
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
	ran := slices.ContainsFunc(steps, func(s readmodel.Step) bool { return s.PluginGeneration > 0 })
	titles := []string{"#", "STEP", "HANDLER", "STATE", "ATTEMPTS", "TOOK", "AFTER", "ERROR"}
	if ran {
		titles = slices.Insert(titles, 5, "BY PLUGIN")
	}
	t.header(titles...)
	for i := range steps {
		s := &steps[i]
		state := stateCell(string(s.State))
		if s.DueAt != nil && s.State == "pending" {
			state.text += " until " + when(*s.DueAt)
		}
		if p := s.Progress; p != nil {
			state.text += progressText(*p)
		}
		cells := []cell{
			text(strconv.Itoa(s.Number)), text(s.Name), text(s.Handler), state,
			text(fmt.Sprintf("%d/%d", s.Attempts, s.MaxAttempts)), text(a.lasting(s.StartedAt, s.FinishedAt)),
			text(strings.Join(s.Parents, ", ")), text(errorText(s.Error)),
		}
		if ran {
			cells = slices.Insert(cells, 5, text(number(s.PluginGeneration)))
		}
		t.add(cells...)
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

// compact prints JSON on one line, digit for digit, safe for a terminal: JSON has no
// control characters outside escapes, but other characters could change the direction
// of writing.
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
