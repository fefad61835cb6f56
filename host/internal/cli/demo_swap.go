package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	demoLoad    = 400 // tasks that run while a plugin is swapped
	demoClients = 16  // clients that submit them and wait for them
)

// demoSwap swaps a plugin when a third of many tasks has run, and shows which
// generation ran how many of their steps.
func (a *app) demoSwap(ctx context.Context, c *client.Client, host *DemoHost) error {
	if !a.json {
		a.printf("\n%s  %d tasks run; %s is swapped when a third of them is done\n", a.paint(cyan, "hot swap"), demoLoad, host.Swap.Plugin)
	}
	show, end := a.phases()
	if show == nil {
		show = func(string, int, int) {}
	}
	swap := make(chan struct{})
	swapped := make(chan error, 1)
	go func() {
		select {
		case <-swap:
			swapped <- host.Swap.Run(ctx)
		case <-ctx.Done():
			swapped <- context.Cause(ctx)
		}
	}()
	began := a.now()
	tasks, failed := demoTasks(ctx, c, host.Swap.Task, func(done int) {
		if done == demoLoad/3 {
			close(swap)
		}
		show("tasks", done, demoLoad)
	})
	end()
	if len(tasks) < demoLoad/3 {
		return fmt.Errorf("run the tasks of the hot swap: %w", errors.Join(failed, context.Cause(ctx)))
	}
	if err := errors.Join(<-swapped, failed); err != nil {
		return fmt.Errorf("hot swap: %w", err)
	}
	took := a.now().Sub(began)
	generations, err := host.Swap.Generations(ctx, tasks)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"tasks": len(tasks), "generations": generations})
	}
	var t table
	t.header("GENERATION", "VERSION", "STEPS", "STATE")
	steps := 0
	for _, g := range generations {
		steps += g.Steps
		t.add(text(number(g.Generation)), text(g.Version), text(strconv.Itoa(g.Steps)), stateCell(g.Phase))
	}
	a.printTable(&t)
	a.printf("%d tasks, %d steps on %d generations in %s: %s\n", len(tasks), steps, len(generations), roughly(took), a.paint(green, "all complete"))
	return nil
}

// demoTasks runs tasks and returns those that are complete; done receives their
// number, from one goroutine at a time.
func demoTasks(ctx context.Context, c *client.Client, s client.Submission, done func(int)) ([]string, error) {
	var left atomic.Int64
	left.Store(demoLoad)
	var mu sync.Mutex
	var complete []string
	var errs []error
	var all sync.WaitGroup
	for range demoClients {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				task, _, err := c.Submit(ctx, s)
				if err == nil {
					last, watched := c.Watch(ctx, task.UUID, nil)
					if err = watched; err == nil && last.State != vocab.TaskComplete {
						err = fmt.Errorf("task %s is %s", task.UUID, last.State)
					}
				}
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
				} else {
					complete = append(complete, task.UUID)
					done(len(complete))
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return complete, errors.Join(errs...)
}
