package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func (a *app) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "Run the example workflows on a separate host", Args: arguments(0, 0, ""),
		Long: "Run the example workflows on a separate host with a private PostgreSQL; DATABASE_URL is ignored. Run it in the " +
			"source tree, after make build. Exits with 0 if every task is complete, with 3 if one is not.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			options, err := a.configOptions()
			if err != nil {
				return err
			}
			began := a.now()
			a.remark("starting a private PostgreSQL and a host with its plugins")
			host, err := a.rt.Demo(cmd.Context(), options)
			if err != nil {
				return err
			}
			defer func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), time.Minute)
				defer cancel()
				err = errors.Join(err, host.Stop(ctx))
			}()
			a.remark("up in %s: %s\n", roughly(a.now().Sub(began)), host.About)
			return a.demo(cmd.Context(), host)
		},
	}
}

// remark tells people what happens, on standard error.
func (a *app) remark(format string, args ...any) {
	if !a.json {
		fmt.Fprintln(a.err, a.paint(grey, fmt.Sprintf(format, args...)))
	}
}

// demo submits the tasks of the demo all at once, shows their progress, and prints
// their results.
func (a *app) demo(ctx context.Context, host *DemoHost) error {
	c, err := client.New(client.Options{Socket: host.Socket})
	if err != nil {
		return fmt.Errorf("connect to the demo's host: %w", err)
	}
	defer c.Close()
	began := a.now()
	tasks, ended := a.runTasks(ctx, c, host.Submissions)
	if ended != nil && !taskFailed(ended) {
		return ended
	}
	took := a.now().Sub(began)
	views := make([]*taskView, len(tasks))
	for i := range tasks {
		if views[i], err = load(ctx, c, tasks[i].UUID); err != nil {
			return err
		}
		if a.json {
			if err := a.printJSON(views[i]); err != nil {
				return err
			}
			continue
		}
		a.showExample(views[i])
	}
	if !a.json {
		a.summarize(views, took)
	}
	if ended == nil && host.Swap != nil {
		return a.demoSwap(ctx, c, host)
	}
	return ended
}

// runTasks submits tasks and follows them until they end. Their bars are drawn
// before they are submitted.
func (a *app) runTasks(ctx context.Context, c *client.Client, subs []client.Submission) ([]readmodel.Task, error) {
	tasks := make([]readmodel.Task, len(subs))
	for i, s := range subs {
		tasks[i].Name = s.Name
	}
	show := a.progress(tasks, !a.json)
	errs := make([]error, len(subs))
	var all sync.WaitGroup
	for i, s := range subs {
		all.Go(func() {
			var last readmodel.Snapshot
			defer func() { show.done(i, &last) }()
			task, _, err := c.Submit(ctx, s)
			if err != nil {
				errs[i] = fmt.Errorf("submit %s/%s: %w", s.Namespace, s.Name, err)
				return
			}
			tasks[i] = task
			last, errs[i] = c.Watch(ctx, task.UUID, func(s readmodel.Snapshot) { show.update(i, &s) })
			if errs[i] == nil && last.State != vocab.TaskComplete {
				errs[i] = errTaskFailed
			}
		})
	}
	all.Wait()
	show.end()
	return tasks, worst(errs)
}

// maxInputShown is how many characters of a task's input the demo shows.
const maxInputShown = 90

// showExample prints a task of the demo with its input and its results.
func (a *app) showExample(v *taskView) {
	a.printf("\n%s  %s, %d steps, %s\n", a.paint(cyan, v.Namespace+"/"+v.Name), a.paint(stateColour(string(v.State)), string(v.State)),
		v.Progress.Total, a.lasting(v.StartedAt, v.CompletedAt))
	input := []rune(compact(v.Context))
	if len(input) > maxInputShown {
		input = append(input[:maxInputShown], '…')
	}
	a.printf("input: %s\n", string(input))
	a.showOutcome(v, false)
}

// summarize says in one line what the demo ran.
func (a *app) summarize(views []*taskView, took time.Duration) {
	steps, states := 0, map[vocab.TaskState]int{}
	for _, v := range views {
		steps += v.Progress.Total
		states[v.State]++
	}
	verdict := a.paint(green, "all complete")
	if states[vocab.TaskComplete] < len(views) {
		var counts []string
		for _, s := range vocab.TaskStates {
			if states[s] > 0 {
				counts = append(counts, a.paint(stateColour(string(s)), fmt.Sprintf("%d %s", states[s], s)))
			}
		}
		verdict = strings.Join(counts, ", ")
	}
	a.printf("\n%d tasks, %d steps in %s: %s\n", len(views), steps, roughly(took), verdict)
}
