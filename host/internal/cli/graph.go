package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/cli/graph"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// graphForm says how to show a graph.
type graphForm struct{ box, dot, mermaid bool }

func (f *graphForm) asked() bool { return f.box || f.dot || f.mermaid }

func (f *graphForm) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.dot, "dot", false, "print the graph for Graphviz")
	cmd.Flags().BoolVar(&f.mermaid, "mermaid", false, "print the graph for Mermaid")
}

// drawnStep is a step of a task or a template as a graph shows it.
type drawnStep struct {
	name    string
	state   string
	lines   []graph.Text // below the name
	parents []string
}

const (
	maxDrawn   = 200 // steps
	drawnError = 40  // columns
)

func (a *app) showGraph(ctx context.Context, c *client.Client, id string, form graphForm) error {
	v, err := load(ctx, c, id)
	if err != nil {
		return err
	}
	if a.json {
		return usagef("--json and a graph exclude each other: --json prints the steps and their parents without it")
	}
	if form.box {
		a.printf("%s %s/%s %s %s\n", v.UUID, oneLine(v.Namespace), oneLine(v.Name), oneLine(v.Version), a.paint(stateColour(string(v.State)), string(v.State)))
	}
	steps := make([]drawnStep, len(v.Steps))
	for i := range v.Steps {
		steps[i] = a.drawn(&v.Steps[i])
	}
	return a.printGraph(steps, form)
}

// drawn shows a step's state, how long it took and why it failed.
func (a *app) drawn(s *readmodel.Step) drawnStep {
	state := string(s.State)
	line := state
	switch took := a.lasting(s.StartedAt, s.FinishedAt); {
	case s.State == "pending" && s.DueAt != nil:
		line += " until " + when(*s.DueAt)
	case took != "" && (s.State.Settled() || s.State == "in_progress"):
		line += " " + took
	}
	if s.Attempts > 1 {
		line += fmt.Sprintf(", attempt %d of %d", s.Attempts, s.MaxAttempts)
	}
	d := drawnStep{name: s.Name, state: state, parents: s.Parents, lines: []graph.Text{{Text: line, Style: state}}}
	if s.Error != nil {
		d.lines = append(d.lines, graph.Text{Text: runewidth.Truncate(oneLine(errorText(s.Error)), drawnError, "…"), Style: "error"})
	}
	return d
}

func (a *app) templateGraphCommand() *cobra.Command {
	var form graphForm
	cmd := &cobra.Command{
		Use: "graph NAMESPACE/NAME[@VERSION]", Short: "Draw a template's steps", Args: arguments(1, 1, "NAMESPACE/NAME[@VERSION]"),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			t, err := namedTemplate(ctx, c, args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(t)
			}
			steps := make([]drawnStep, len(t.Steps))
			for i := range t.Steps {
				s := &t.Steps[i]
				handler := graph.Text{Text: oneLine(s.Handler), Style: "handler"}
				if !s.Served {
					handler = graph.Text{Text: handler.Text + " (nobody serves it)", Style: "warn"}
				}
				steps[i] = drawnStep{name: s.Name, parents: s.DependsOn, lines: []graph.Text{handler}}
			}
			return a.printGraph(steps, form)
		}),
	}
	form.flags(cmd)
	return cmd
}

func (a *app) printGraph(steps []drawnStep, form graphForm) error {
	switch {
	case form.dot:
		a.printf("%s", dotGraph(steps))
	case form.mermaid:
		a.printf("%s", mermaidGraph(steps))
	case len(steps) > maxDrawn:
		return fmt.Errorf("%d steps are too many to draw on a terminal (at most %d): use --dot or --mermaid", len(steps), maxDrawn)
	default:
		numbers := stepNumbers(steps)
		nodes := make([]graph.Node, len(steps))
		for i, s := range steps {
			nodes[i].Lines = append([]graph.Text{{Text: oneLine(s.name)}}, s.lines...)
			for _, p := range s.parents {
				nodes[i].Parents = append(nodes[i].Parents, numbers[p])
			}
		}
		a.printf("%s", graph.Draw(nodes, func(style, text string) string {
			if style == "handler" {
				return a.paint(grey, text)
			}
			return a.paint(stateColour(style), text)
		}))
	}
	return nil
}

func stepNumbers(steps []drawnStep) map[string]int {
	numbers := make(map[string]int, len(steps))
	for i, s := range steps {
		numbers[s.name] = i
	}
	return numbers
}

// fills are the colours of states in graphs for other programs.
var fills = map[string]string{
	"complete": "#c8e6c9", "resolved_manually": "#dcedc8", "error": "#ffcdd2", "cancelled": "#ffe0b2",
	"in_progress": "#b3e5fc", "enqueued": "#e1f5fe",
}

// label joins the lines of a box; quote escapes a line for the format.
func (d *drawnStep) label(separator string, quote func(string) string) string {
	parts := []string{quote(oneLine(d.name))}
	for _, l := range d.lines {
		parts = append(parts, quote(l.Text))
	}
	return strings.Join(parts, separator)
}

func dotGraph(steps []drawnStep) string {
	var out strings.Builder
	out.WriteString("digraph task {\n  node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"sans-serif\"];\n")
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace
	for _, s := range steps {
		fill := ""
		if f := fills[s.state]; f != "" {
			fill = ", fillcolor=\"" + f + "\""
		}
		fmt.Fprintf(&out, "  %q [label=\"%s\"%s];\n", s.name, s.label(`\n`, quote), fill)
	}
	for _, s := range steps {
		for _, p := range s.parents {
			fmt.Fprintf(&out, "  %q -> %q;\n", p, s.name)
		}
	}
	out.WriteString("}\n")
	return out.String()
}

func mermaidGraph(steps []drawnStep) string {
	var out strings.Builder
	out.WriteString("flowchart TD\n")
	quote := strings.NewReplacer("#", "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;", "&", "#amp;").Replace
	numbers := stepNumbers(steps)
	for i, s := range steps {
		fmt.Fprintf(&out, "    s%d[\"%s\"]\n", i, s.label("<br/>", quote))
		if f := fills[s.state]; f != "" {
			fmt.Fprintf(&out, "    style s%d fill:%s\n", i, f)
		}
	}
	for i, s := range steps {
		for _, p := range s.parents {
			out.WriteString("    s" + strconv.Itoa(numbers[p]) + " --> s" + strconv.Itoa(i) + "\n")
		}
	}
	return out.String()
}
