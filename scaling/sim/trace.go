package sim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// Row is the load of one interval of a trace.
type Row struct {
	Arrivals int
	Service  float64 // seconds of work in each piece, on average
}

// Trace is a load over time.
type Trace struct {
	Name     string
	Comments []string // the lines at the beginning of the file
	Interval time.Duration
	Rows     []Row
}

// Length returns the duration of the trace.
func (t *Trace) Length() time.Duration { return time.Duration(len(t.Rows)) * t.Interval }

// Limits of a trace: a larger one is a mistake, or would run for hours.
const (
	maxRows     = 1_000_000
	maxArrivals = 10_000_000
	maxTotal    = 100_000_000
	maxLine     = 256
)

const header = "seconds,arrivals,service_seconds"

// TraceError says what is wrong with a trace, and in which line.
type TraceError struct {
	Line    int
	Message string
}

var _ error = (*TraceError)(nil)

// Error returns the line and the message.
func (e *TraceError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// ReadTrace reads a trace: comments, the header and the rows of a CSV file; see
// docs/scaling.md. It refuses anything ambiguous.
func ReadTrace(name string, in io.Reader) (*Trace, error) {
	r := traceReader{trace: &Trace{Name: name}}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 4*maxLine), 4*maxLine)
	for lines.Scan() {
		r.line++
		if err := r.take(strings.TrimSuffix(lines.Text(), "\r")); err != nil {
			return nil, fmt.Errorf("trace %s: %w", name, err)
		}
	}
	err := lines.Err()
	r.line++
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		err = r.wrong("it is longer than %d bytes: this is not a trace", 4*maxLine)
	case err != nil:
	case !r.headed:
		err = r.wrong("the file ends too early: want the header %s", header)
	case len(r.trace.Rows) < 2:
		err = r.wrong("the file ends too early: want at least two rows, because their distance is the interval")
	}
	if err != nil {
		return nil, fmt.Errorf("trace %s: %w", name, err)
	}
	return r.trace, nil
}

type traceReader struct {
	trace  *Trace
	line   int
	headed bool
	total  int
}

func (r *traceReader) wrong(format string, args ...any) error {
	return &TraceError{Line: r.line, Message: fmt.Sprintf(format, args...)}
}

func (r *traceReader) take(text string) error {
	switch {
	case len(text) > maxLine:
		return r.wrong("it has %d bytes, more than %d: this is not a trace", len(text), maxLine)
	case strings.HasPrefix(text, "#") && !r.headed:
		r.trace.Comments = append(r.trace.Comments, strings.TrimSpace(text[1:]))
		return nil
	case !r.headed && text != header:
		return r.wrong("%q: want comments and then the header %s", text, header)
	case !r.headed:
		r.headed = true
		return nil
	}
	return r.row(text)
}

func (r *traceReader) row(text string) error {
	fields := strings.Split(text, ",")
	if len(fields) != 3 {
		return r.wrong("%q: want three values, %s", text, header)
	}
	seconds, err := strconv.ParseInt(fields[0], 10, 32)
	if err != nil {
		return r.wrong("seconds %q: want a whole number", fields[0])
	}
	if err := r.inOrder(seconds); err != nil {
		return err
	}
	arrivals, err := strconv.Atoi(fields[1])
	if err != nil || arrivals < 0 || arrivals > maxArrivals {
		return r.wrong("arrivals %q: want a whole number from 0 to %d", fields[1], maxArrivals)
	}
	service, err := strconv.ParseFloat(fields[2], 64)
	if err != nil || math.IsNaN(service) || service <= 0 || service > 86400 {
		return r.wrong("service_seconds %q: want a number above 0, at most 86400", fields[2])
	}
	r.total += arrivals
	if r.total > maxTotal || len(r.trace.Rows) == maxRows {
		return r.wrong("the trace is too large: at most %d rows and %d arrivals", maxRows, maxTotal)
	}
	r.trace.Rows = append(r.trace.Rows, Row{Arrivals: arrivals, Service: service})
	return nil
}

// inOrder checks that a row begins where the one before ended.
func (r *traceReader) inOrder(seconds int64) error {
	at := time.Duration(seconds) * time.Second
	switch n := len(r.trace.Rows); {
	case n == 0 && seconds != 0:
		return r.wrong("seconds %d: the first row begins at 0", seconds)
	case n == 0:
		return nil
	case n == 1 && seconds <= 0:
		return r.wrong("seconds %d: want a second row after the first", seconds)
	case n == 1:
		r.trace.Interval = at
		return nil
	}
	want := r.trace.Length()
	switch {
	case at > want:
		return r.wrong("seconds %d: a row is missing, want %d", seconds, want/time.Second)
	case at < want:
		return r.wrong("seconds %d: out of order, want %d", seconds, want/time.Second)
	}
	return nil
}

// Write writes the trace as ReadTrace reads it.
func (t *Trace) Write(out io.Writer) error {
	w := bufio.NewWriter(out)
	for _, c := range t.Comments {
		fmt.Fprintf(w, "# %s\n", c)
	}
	fmt.Fprintln(w, header)
	for i, row := range t.Rows {
		fmt.Fprintf(w, "%d,%d,%s\n", int64(i)*int64(t.Interval/time.Second), row.Arrivals,
			strconv.FormatFloat(row.Service, 'g', -1, 64))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}
