package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// watchers is how many tasks are watched at once; the others wait.
const watchers = 32

func (a *app) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "watch TASK...", Short: "Watch tasks until they end",
		Long: "Watch tasks until all of them have ended. A terminal shows a progress bar for each task; otherwise, each change is " +
			"printed as a line. --json prints one snapshot per line. Exits with 0 if all tasks are complete, with 3 if one is not.",
		Args: taskArguments,
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			return a.watch(ctx, c, args, true)
		}),
	}
}

func taskFailed(err error) bool { return errors.Is(err, errTaskFailed) }

// watch follows tasks until all are settled. Its error is errTaskFailed if one
// is not complete, unless something worse happened.
func (a *app) watch(ctx context.Context, c *client.Client, ids []string, visible bool) error {
	tasks := make([]readmodel.Task, len(ids))
	for i, id := range ids {
		var err error
		if tasks[i], err = c.Task(ctx, id); err != nil {
			return err
		}
	}
	show := a.progress(tasks, visible)
	errs := make([]error, len(ids))
	places := make(chan struct{}, watchers)
	var all sync.WaitGroup
	for i, id := range ids {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			last, err := c.Watch(ctx, id, func(s readmodel.Snapshot) { show.update(i, &s) })
			if err == nil && last.State != vocab.TaskComplete {
				err = errTaskFailed
			}
			errs[i] = err
			show.done(i, &last)
		})
	}
	all.Wait()
	show.end()
	return worst(errs)
}

// worst prefers errors of watching to tasks that failed.
func worst(errs []error) error {
	var failed error
	for _, err := range errs {
		if err != nil && !taskFailed(err) {
			return err
		}
		if err != nil {
			failed = err
		}
	}
	return failed
}

// progress shows tasks as they move. Several goroutines call update and done, but only
// one for each task.
type progress interface {
	update(i int, s *readmodel.Snapshot)
	done(i int, s *readmodel.Snapshot)
	end()
}

func (a *app) progress(tasks []readmodel.Task, visible bool) progress {
	switch {
	case !visible:
		return silent{}
	case a.json:
		return &lines{print: func(_ int, s *readmodel.Snapshot) { _ = a.printLine(s) }}
	case a.terminal:
		return newBars(a.out, tasks)
	default:
		said := make([]string, len(tasks))
		return &lines{print: func(i int, s *readmodel.Snapshot) {
			if now := position(s) + why(s); now != said[i] { // progress of a step within its state changes nothing here
				said[i] = now
				a.printf("%s %s  %s\n", tasks[i].Name, tasks[i].UUID, now)
			}
		}}
	}
}

// position says how far a task is, and what its running steps report.
func position(s *readmodel.Snapshot) string {
	return fmt.Sprintf("%d/%d %s", s.Progress.Completed, s.Progress.Total, s.State) + running(s.Running)
}

// shownRunning bounds how many running steps a line shows.
const shownRunning = 3

func running(steps []readmodel.RunningStep) string {
	var b strings.Builder
	for i, r := range steps {
		if i == shownRunning {
			fmt.Fprintf(&b, "  +%d more", len(steps)-i)
			break
		}
		b.WriteString("  " + r.Step + progressText(r.StepProgress))
	}
	return b.String()
}

// progressText is the progress that a running step reports, to append to a text.
func progressText(p readmodel.StepProgress) string {
	s := fmt.Sprintf(" %d%%", p.Percent)
	if p.Note != "" {
		s += " " + oneLine(p.Note)
	}
	return s
}

// why says why a task did not end complete.
func why(s *readmodel.Snapshot) string {
	switch {
	case s.State == vocab.TaskComplete || !s.Settled():
		return ""
	case s.Error != nil:
		return ": " + oneLine(failure(s.Error))
	case s.StateReason != "":
		return ": " + oneLine(s.StateReason)
	default:
		return ""
	}
}

type silent struct{}

func (silent) update(int, *readmodel.Snapshot) {}
func (silent) done(int, *readmodel.Snapshot)   {}
func (silent) end()                            {}

// lines prints a line for each change.
type lines struct {
	mu    sync.Mutex
	print func(i int, s *readmodel.Snapshot)
}

func (l *lines) update(i int, s *readmodel.Snapshot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.print(i, s)
}

func (l *lines) done(int, *readmodel.Snapshot) {}
func (l *lines) end()                          {}

// bars draws a bar for each task, and says at the end why some failed.
type bars struct {
	out       io.Writer
	container *mpb.Progress
	labels    []string
	bars      []*mpb.Bar
	last      []atomic.Pointer[readmodel.Snapshot]
}

// refresh is the time between two drawings of the bars: short, because many tasks
// end within a tenth of a second.
const refresh = 30 * time.Millisecond

func newBars(w io.Writer, tasks []readmodel.Task) *bars {
	b := &bars{
		out:       w,
		container: mpb.New(mpb.WithOutput(w), mpb.WithWidth(64), mpb.WithAutoRefresh(), mpb.WithRefreshRate(refresh)),
		labels:    barLabels(tasks),
		last:      make([]atomic.Pointer[readmodel.Snapshot], len(tasks)),
	}
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("█").Tip("█").Padding("░")
	for i, label := range b.labels {
		last := &b.last[i]
		b.bars = append(b.bars, b.container.New(0, style, mpb.BarPriority(i),
			mpb.PrependDecorators(decor.Name(label, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
				if s := last.Load(); s != nil {
					return position(s)
				}
				return "waiting"
			}, decor.WCSyncSpaceR)),
		))
	}
	return b
}

// barLabels are the shortest names that tell the tasks apart.
func barLabels(tasks []readmodel.Task) []string {
	seen := map[string]int{}
	for i := range tasks {
		seen[tasks[i].Name]++
	}
	labels := make([]string, len(tasks))
	for i := range tasks {
		labels[i] = tasks[i].Name
		if seen[tasks[i].Name] > 1 {
			labels[i] += " " + tasks[i].UUID[:23]
		}
	}
	return labels
}

func (b *bars) update(i int, s *readmodel.Snapshot) {
	b.last[i].Store(s)
	b.bars[i].SetTotal(int64(s.Progress.Total), false)
	b.bars[i].SetCurrent(int64(s.Progress.Completed))
}

func (b *bars) done(i int, s *readmodel.Snapshot) {
	if s.State == vocab.TaskComplete {
		b.bars[i].SetTotal(int64(s.Progress.Total), true)
		return
	}
	b.bars[i].Abort(false) // the bar stays where it is
}

func (b *bars) end() {
	b.container.Wait()
	for i := range b.last {
		if s := b.last[i].Load(); s != nil && why(s) != "" {
			fmt.Fprintf(b.out, "%s %s%s\n", b.labels[i], s.State, why(s))
		}
	}
}
