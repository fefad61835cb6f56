package workercheck

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Namespace is the namespace of the checks.
const Namespace = "worker_check"

const (
	workerName = "checked"
	lease      = 2 * time.Second
	stopTime   = 10 * time.Second
)

//go:embed templates/*.yaml
var templates embed.FS

// Config says what to check and where.
type Config struct {
	Command  []string
	Database string // URL for the worker's connection
	API      *client.Client
	Pool     *pgxpool.Pool // may see and do everything
	Progress func(check string)
	// Patience bounds every wait for something that a correct worker does at once or,
	// after an interference, within its lease of two seconds.
	Patience time.Duration
}

// check is one thing that a worker must do. A complaint says what it did instead; an
// error is not the worker's fault.
type check struct {
	name, wants string
	run         func(ctx context.Context, b *trial) (complaint string, err error)
}

var checks = []check{
	{"starts", "connects, and claims steps of TASKER_NAMESPACE under the name TASKER_WORKER", starts},
	{"success", "check.echo returns the value in the context", success},
	{"numbers", "numbers keep every digit: integers beyond 64 bits, and decimals", numbers},
	{"unicode", "strings come back unchanged", unicode},
	{"dependencies", "check.add adds the results of the steps it depends on", dependencies},
	{"retry", "a retryable failure is settled as such, and the next attempt succeeds", retry},
	{"permanent", "a permanent failure is settled as such, with message and code", permanent},
	{"poison", "a result that cannot be stored fails its step, and the worker continues", poison},
	{"heartbeat", "the lease of a long step is extended", heartbeat},
	{"cancel", "a step whose task is cancelled is stopped, and the worker continues", cancelled},
	{"lease_lost", "a worker that lost a lease continues, and its result for that step is ignored", leaseLost},
	{"stop", "on SIGTERM, the worker gives its step back and exits within 10 s", stopped},
}

// Run runs all checks, one after the other. A worker that exits is restarted.
func Run(ctx context.Context, cfg Config) (readmodel.WorkerReport, error) {
	report := readmodel.WorkerReport{Command: cfg.Command, Checks: []readmodel.WorkerCheck{}}
	b := &trial{Config: cfg}
	defer b.kill()
	if err := b.apply(ctx); err != nil {
		return report, err
	}
	b.clean(ctx) // a step that the previous check's worker gave back would occupy the worker
	if err := cfg.Pool.QueryRow(ctx, "select clock_timestamp()").Scan(&b.began); err != nil {
		return report, fmt.Errorf("read the database's clock: %w", err)
	}
	for _, c := range checks {
		if cfg.Progress != nil {
			cfg.Progress(c.name)
		}
		result := readmodel.WorkerCheck{Name: c.name, Wants: c.wants}
		began := time.Now()
		if err := b.start(); err != nil {
			return report, err
		}
		complaint, err := c.run(ctx, b)
		if err != nil {
			return report, fmt.Errorf("check %s: %w", c.name, err)
		}
		if ended := b.ended(); ended != "" && c.name != "stop" {
			complaint = join(complaint, ended)
		} else if words := b.output.String(); complaint != "" && words != "" {
			complaint = join(complaint, "its output: "+words)
		}
		result.Passed, result.Complaint, result.Seconds = complaint == "", complaint, time.Since(began).Seconds()
		report.Checks = append(report.Checks, result)
		if complaint != "" {
			b.clean(ctx)
		}
		if complaint != "" && c.name == "starts" {
			break // there is no worker to check
		}
	}
	return report, nil
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// trial is the environment in which the worker is checked.
type trial struct {
	Config
	process
	began time.Time // by the database's clock
}

func (b *trial) apply(ctx context.Context) error {
	files, err := templates.ReadDir("templates")
	if err != nil {
		return fmt.Errorf("read the templates of the check: %w", err)
	}
	for _, f := range files {
		source, err := templates.ReadFile("templates/" + f.Name())
		if err == nil {
			_, _, err = b.API.ApplyTemplate(ctx, f.Name(), source)
		}
		if err != nil {
			return fmt.Errorf("apply the check's template %s: %w", f.Name(), err)
		}
	}
	return nil
}

// submit creates a task and returns its UUID.
func (b *trial) submit(ctx context.Context, name string, input any) (string, error) {
	raw, err := json.Marshal(input)
	if err != nil {
		return "", fmt.Errorf("encode the input: %w", err)
	}
	task, _, err := b.API.Submit(ctx, client.Submission{Namespace: Namespace, Name: name, Version: "1.0.0", Context: raw})
	return task.UUID, err
}

// runs submits a task and waits until it ends in the given state. A complaint says what
// happened instead.
func (b *trial) runs(ctx context.Context, name string, input any, want vocab.TaskState, within time.Duration) (task, complaint string, err error) {
	if task, err = b.submit(ctx, name, input); err != nil {
		return "", "", err
	}
	complaint, err = b.ends(ctx, task, want, within)
	return task, complaint, err
}

func (b *trial) ends(ctx context.Context, task string, want vocab.TaskState, within time.Duration) (complaint string, err error) {
	wait, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	last, err := b.API.Watch(wait, task, func(readmodel.Snapshot) {})
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case wait.Err() != nil:
		step, err := b.first(ctx, task)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("the task did not end within %v: step %s is %s, claimed %d times", within, step.Name, step.State, step.Claims), nil
	case err != nil:
		return "", err
	case last.State != want:
		step, err := b.first(ctx, task)
		if err != nil {
			return "", err
		}
		text := fmt.Sprintf("the task ended in state %s, want %s", last.State, want)
		if step.Error != nil {
			text += fmt.Sprintf(": step %s: %s", step.Name, step.Error.Message)
		}
		return text, nil
	}
	return "", nil
}

// first returns the first step of a task that has not succeeded, or else its
// last one.
func (b *trial) first(ctx context.Context, task string) (readmodel.Step, error) {
	steps, err := b.API.Steps(ctx, task)
	if err != nil {
		return readmodel.Step{}, err
	}
	if len(steps) == 0 {
		return readmodel.Step{}, errors.New("the task has no steps")
	}
	for i := range steps {
		if steps[i].State != vocab.StepComplete {
			return steps[i], nil
		}
	}
	return steps[len(steps)-1], nil
}

// equal compares JSON values as the database does: numbers by value, of any size.
func (b *trial) equal(ctx context.Context, got, want json.RawMessage) (same bool, err error) {
	err = b.Pool.QueryRow(ctx, "select $1::text::jsonb = $2::text::jsonb", string(got), string(want)).Scan(&same)
	if err != nil {
		return false, fmt.Errorf("compare results: %w", err)
	}
	return same, nil
}

// until polls until a condition holds or the time is over.
func until(ctx context.Context, within time.Duration, look func() (bool, error)) (bool, error) {
	deadline := time.Now().Add(within)
	for {
		if ok, err := look(); ok || err != nil {
			return ok, err
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// clean cancels the tasks that failed or earlier checks left behind, so that they do not
// affect the next one.
func (b *trial) clean(ctx context.Context) {
	b.kill()
	page, err := b.API.Tasks(ctx, client.TaskFilter{States: []vocab.TaskState{vocab.TaskPending, vocab.TaskInProgress}, Namespace: Namespace})
	if err != nil {
		return
	}
	for i := range page.Items {
		_, _ = b.API.Cancel(ctx, page.Items[i].UUID, "left by a check")
	}
}
