package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tasker-systems/tasker-host/host/internal/payload"
)

// output remembers write errors, such as a full disk: a command that cannot print its
// output has failed.
type output struct {
	to  io.Writer
	mu  sync.Mutex
	err error // the first; guarded by mu
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil {
			o.err = fmt.Errorf("write the output: %w", err)
		}
	}
	return n, err
}

func (o *output) fault() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// colour is an ANSI colour.
type colour string

const (
	plain  colour = ""
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	cyan   colour = "36"
	grey   colour = "90"
)

// paint colours text if the terminal shows colours.
func (a *app) paint(c colour, text string) string {
	if !a.colour || c == plain {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// stateColour is the colour of a state of a task or step.
func stateColour(state string) colour {
	switch state {
	case "complete", "resolved_manually", "ok", "serving", "healthy":
		return green
	case "error", "fail", "failed", "refused", "unhealthy", "critical":
		return red
	case "cancelled", "warn", "warning", "backing_off", "degraded", "unknown":
		return yellow
	case "in_progress", "enqueued":
		return cyan
	default:
		return plain
	}
}

func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.out, format, args...) }

// printJSON prints a value as the API would name its fields, indented, with
// every digit of the numbers inside.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// printLine prints a value as one line of JSON.
func (a *app) printLine(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

const maxShown = 4096 // bytes of one text that others wrote

// printable makes text that others wrote safe for a terminal; line ends stay.
func printable(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = payload.Text(strings.ReplaceAll(lines[i], "\t", "  "), maxShown)
	}
	return strings.Join(lines, "\n")
}

// oneLine makes text that others wrote safe for a cell of a table.
func oneLine(text string) string { return payload.Text(text, maxShown) }

// cell is one field of a table.
type cell struct {
	text   string
	colour colour
}

func text(s string) cell { return cell{text: oneLine(s)} }

func stateCell(s string) cell { return cell{text: oneLine(s), colour: stateColour(s)} }

// table prints aligned columns. It is not text/tabwriter because that counts
// the bytes of colours as width.
type table struct {
	rows [][]cell
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// header adds the titles.
func (t *table) header(titles ...string) {
	row := make([]cell, len(titles))
	for i, s := range titles {
		row[i] = cell{text: s, colour: grey}
	}
	t.rows = append(t.rows, row)
}

func (t *table) print(w io.Writer, paint func(colour, string) string) {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range t.rows {
		var line strings.Builder
		for i, c := range row {
			line.WriteString(paint(c.colour, c.text))
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

func (a *app) printTable(t *table) { t.print(a.out, a.paint) }

// when shows a point in time, in UTC to the second.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// lasting shows how long something took, or has taken so far.
func (a *app) lasting(from, to *time.Time) string {
	if from == nil {
		return ""
	}
	end := a.now()
	if to != nil {
		end = *to
	}
	return roughly(end.Sub(*from))
}

// roughly rounds a duration for readers.
func roughly(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < 10*time.Second:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}
