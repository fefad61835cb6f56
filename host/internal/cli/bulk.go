package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	sdk "github.com/tasker-systems/tasker-host/sdk/client"
	"github.com/tasker-systems/tasker-host/sdk/task"
)

// errRefused says that lines of a bulk submission were refused. They have already
// been shown.
var errRefused = errors.New("not every line was accepted")

// shownRefusals bounds how many refused lines are shown.
const shownRefusals = 10

// bulkSummary is the last line that --json prints.
type bulkSummary struct {
	Summary bulkTotals `json:"summary"`
}

type bulkTotals struct {
	sdk.BulkResult
	Seconds float64 `json:"seconds"`
}

// submitBulk submits the lines of a file.
func (a *app) submitBulk(ctx context.Context, c *client.Client, f submitFlags) error {
	in, size, err := a.openLines(f.bulk)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	refused, err := openRefused(f.refused)
	if err != nil {
		return err
	}
	s := &bulkRun{app: a, refused: refused, bar: a.bulkBar(size), began: a.now()}
	result, err := c.SubmitLines(ctx, in, sdk.BulkOptions{IdempotencyKey: f.key, Answered: s.answered, Waiting: s.waiting})
	s.bar.end(err == nil)
	if failed := refused.close(); failed != nil && s.failed == nil {
		s.failed = failed
	}
	if err != nil && result.Created+result.Existing+result.Refused == 0 {
		return err // nothing was submitted that could be continued
	}
	s.summary(result, f.refused)
	switch {
	case err != nil:
		return &bulkError{err, result, f.bulk}
	case s.failed != nil:
		return s.failed
	case result.Refused > 0:
		return errRefused
	}
	return nil
}

// bulkError is the error of a bulk submission that ended early.
type bulkError struct {
	err    error
	result sdk.BulkResult
	file   string
}

func (e *bulkError) Error() string {
	return fmt.Sprintf("%v\n%d lines were answered; to continue, submit %s again with --idempotency-key %s: no task is created twice",
		e.err, e.result.Created+e.result.Existing+e.result.Refused, e.file, e.result.IdempotencyKey)
}

func (e *bulkError) Unwrap() error { return e.err }

// openLines opens a file of submissions, or standard input; size is 0 if it is
// not known.
func (a *app) openLines(path string) (in io.ReadCloser, size int64, err error) {
	if path == "-" {
		return io.NopCloser(a.in), 0, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read the submissions: %w", err)
	}
	info, err := file.Stat()
	switch {
	case err == nil && info.IsDir():
		return nil, 0, errors.Join(fmt.Errorf("read the submissions: %s is a directory", path), file.Close())
	case err == nil && info.Mode().IsRegular():
		size = info.Size()
	}
	return file, size, nil
}

// refusedFile receives the refused lines, unchanged. It is created when the first
// one is written.
type refusedFile struct {
	path string
	file *os.File
	out  *bufio.Writer
}

func openRefused(path string) (*refusedFile, error) {
	if path != "" {
		if _, err := os.Lstat(path); err == nil {
			return nil, fmt.Errorf("%s already exists: name a new file for the refused lines", path)
		}
	}
	return &refusedFile{path: path}, nil
}

func (r *refusedFile) write(line []byte) error {
	if r.path == "" {
		return nil
	}
	if r.file == nil {
		file, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("write the refused lines: %w", err)
		}
		r.file, r.out = file, bufio.NewWriter(file)
	}
	if _, err := r.out.Write(line); err != nil {
		return fmt.Errorf("write the refused lines: %w", err)
	}
	return nil
}

func (r *refusedFile) close() error {
	if r.file == nil {
		return nil
	}
	if err := errors.Join(r.out.Flush(), r.file.Close()); err != nil {
		return fmt.Errorf("write the refused lines: %w", err)
	}
	return nil
}

// bulkRun shows the progress of a bulk submission.
type bulkRun struct {
	app     *app
	refused *refusedFile
	bar     *bulkBar
	began   time.Time
	shown   int
	failed  error // of the file of refused lines, the first
}

func (s *bulkRun) answered(a task.BulkAnswer, line []byte) {
	s.bar.add(len(line))
	if s.app.json {
		_ = s.app.printLine(a)
	}
	if a.Problem == nil {
		return
	}
	if err := s.refused.write(line); err != nil && s.failed == nil {
		s.failed = err
	}
	if s.shown++; s.shown <= shownRefusals && !s.app.json {
		e := client.Error{Problem: *a.Problem}
		s.bar.say(s.app.err, fmt.Sprintf("line %d: %s\n", a.Line, printable(e.Error())))
	}
}

func (s *bulkRun) waiting(err error, pause time.Duration) {
	if !s.app.json {
		s.bar.say(s.app.err, fmt.Sprintf("retrying in %s: %s\n", roughly(pause), printable(err.Error())))
	}
}

func (s *bulkRun) summary(r sdk.BulkResult, refusedPath string) {
	a, took := s.app, s.app.now().Sub(s.began)
	if a.json {
		_ = a.printLine(bulkSummary{bulkTotals{r, took.Seconds()}})
		return
	}
	if more := s.shown - shownRefusals; more > 0 {
		fmt.Fprintf(a.err, "%d more lines refused\n", more)
	}
	text := fmt.Sprintf("submitted %d", r.Created)
	if r.Existing > 0 {
		text += fmt.Sprintf(", %d existed already", r.Existing)
	}
	if r.Refused > 0 {
		text += fmt.Sprintf(", %d refused", r.Refused)
		if refusedPath != "" {
			text += " (" + oneLine(refusedPath) + ")"
		}
	}
	a.printf("%s in %s\n", text, roughly(took))
}

// bulkBar is a progress bar for a file, or a count if its size is unknown. Without a
// terminal, it shows nothing.
type bulkBar struct {
	container *mpb.Progress
	bar       *mpb.Bar
	size      int64
	lines     atomic.Int64
}

func (a *app) bulkBar(size int64) *bulkBar {
	b := &bulkBar{size: size}
	if a.json || !a.terminal {
		return b
	}
	began := a.now()
	b.container = mpb.New(mpb.WithOutput(a.out), mpb.WithWidth(64), mpb.WithAutoRefresh(), mpb.WithRefreshRate(refresh))
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("█").Tip("█").Padding("░")
	b.bar = b.container.New(size, style,
		mpb.PrependDecorators(decor.Name("submitted", decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			n := b.lines.Load()
			text := fmt.Sprintf("%d", n)
			if seconds := a.now().Sub(began).Seconds(); seconds >= 1 {
				text += fmt.Sprintf("  %.0f/s", float64(n)/seconds)
			}
			return text
		}, decor.WCSyncSpaceR)),
	)
	return b
}

func (b *bulkBar) add(bytes int) {
	b.lines.Add(1)
	if b.bar != nil {
		b.bar.IncrBy(bytes)
	}
}

// say writes a line above the bar.
func (b *bulkBar) say(elsewhere io.Writer, text string) {
	if b.container == nil {
		_, _ = io.WriteString(elsewhere, text)
		return
	}
	_, _ = io.WriteString(b.container, text)
}

func (b *bulkBar) end(whole bool) {
	if b.bar == nil {
		return
	}
	if whole {
		b.bar.SetTotal(-1, true) // empty lines were not counted
	} else {
		b.bar.Abort(false)
	}
	b.container.Wait()
}
