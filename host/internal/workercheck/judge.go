package workercheck

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func starts(ctx context.Context, b *trial) (string, error) {
	seen, err := until(ctx, b.Patience, func() (seen bool, err error) {
		err = b.Pool.QueryRow(ctx, "select exists (select from tasker_workers where namespace = $1 and name = $2 and last_seen_at >= $3)",
			Namespace, workerName, b.began).Scan(&seen)
		return seen || b.ended() != "", err
	})
	if err == nil && !seen {
		return fmt.Sprintf("the worker asked for no step within %v: call tasker_worker_claim or tasker_worker_exchange", b.Patience), nil
	}
	return "", err
}

// echoes sends values through the worker and compares what comes back.
func echoes(ctx context.Context, b *trial, values ...string) (string, error) {
	for _, v := range values {
		task, complaint, err := b.runs(ctx, "echo", map[string]any{"value": json.RawMessage(v)}, vocab.TaskComplete, b.Patience)
		if complaint != "" || err != nil {
			return complaint, err
		}
		step, err := b.first(ctx, task)
		if err != nil {
			return "", err
		}
		if same, err := b.equal(ctx, step.Result, json.RawMessage(v)); err != nil {
			return "", err
		} else if !same {
			return fmt.Sprintf("sent %s, got %.200s", v, step.Result), nil
		}
	}
	return "", nil
}

func success(ctx context.Context, b *trial) (string, error) {
	return echoes(ctx, b, `{"done": true, "items": [1, "two", null]}`, `null`)
}

func numbers(ctx context.Context, b *trial) (string, error) {
	return echoes(ctx, b, `[340282366920938463463374607431768211456, -170141183460469231731687303715884105728, 9007199254740993]`,
		`[0.1, 1234567890.12345678901234567890, -1e-20]`)
}

func unicode(ctx context.Context, b *trial) (string, error) {
	return echoes(ctx, b, `"ünïcødé 日本語 😀 \\ \" \n \t \u200b end"`, `{"schlüssel 😀": ["\u0001", ""]}`)
}

func dependencies(ctx context.Context, b *trial) (string, error) {
	task, complaint, err := b.runs(ctx, "add", map[string]any{"value": json.RawMessage("340282366920938463463374607431768211456")}, vocab.TaskComplete, b.Patience)
	if complaint != "" || err != nil {
		return complaint, err
	}
	step, err := b.first(ctx, task)
	if err != nil {
		return "", err
	}
	if want := "680564733841876926926749214863536422912"; string(step.Result) != want {
		return fmt.Sprintf("2^128 + 2^128 gave %.100s, want %s", step.Result, want), nil
	}
	return "", nil
}

func retry(ctx context.Context, b *trial) (string, error) {
	task, complaint, err := b.runs(ctx, "retry", struct{}{}, vocab.TaskComplete, b.Patience)
	if complaint != "" || err != nil {
		return complaint, err
	}
	step, err := b.first(ctx, task)
	if err != nil || step.Attempts == 2 {
		return "", err
	}
	return fmt.Sprintf("%d attempts were counted, want 2: the first one fails and may be retried", step.Attempts), nil
}

func permanent(ctx context.Context, b *trial) (string, error) {
	const message = "nie wieder – 二度と 😀"
	task, complaint, err := b.runs(ctx, "permanent", map[string]string{"message": message}, vocab.TaskError, b.Patience)
	if complaint != "" || err != nil {
		return complaint, err
	}
	step, err := b.first(ctx, task)
	switch {
	case err != nil:
		return "", err
	case step.Attempts != 1:
		return fmt.Sprintf("the step was tried %d times: settle it with the outcome permanent", step.Attempts), nil
	case step.Error == nil || step.Error.Message != message:
		return fmt.Sprintf("the message %q was recorded as %+v", message, step.Error), nil
	case step.Error.Code != "CHECK_PERMANENT":
		return fmt.Sprintf("the code CHECK_PERMANENT was recorded as %q", step.Error.Code), nil
	}
	return "", nil
}

func poison(ctx context.Context, b *trial) (string, error) {
	_, complaint, err := b.runs(ctx, "poison", struct{}{}, vocab.TaskError, b.Patience)
	if complaint != "" || err != nil {
		return complaint, err
	}
	complaint, err = success(ctx, b)
	if complaint != "" {
		complaint = "afterwards: " + complaint
	}
	return complaint, err
}

func heartbeat(ctx context.Context, b *trial) (string, error) {
	task, complaint, err := b.runs(ctx, "sleep", map[string]float64{"seconds": 2.5 * lease.Seconds()}, vocab.TaskComplete, b.Patience)
	if complaint != "" || err != nil {
		return complaint, err
	}
	step, err := b.first(ctx, task)
	if err != nil || step.Claims == 1 {
		return "", err
	}
	return fmt.Sprintf("the step was claimed %d times: call tasker_worker_heartbeat before a third of the lease has passed", step.Claims), nil
}

// sleeping submits a long step and waits until it runs.
func sleeping(ctx context.Context, b *trial, seconds float64) (task, complaint string, err error) {
	if task, err = b.submit(ctx, "sleep", map[string]float64{"seconds": seconds}); err != nil {
		return "", "", err
	}
	runs, err := until(ctx, b.Patience, func() (bool, error) {
		step, err := b.first(ctx, task)
		return step.State == vocab.StepInProgress, err
	})
	if err == nil && !runs {
		complaint = fmt.Sprintf("the worker did not claim a waiting step within %v", b.Patience)
	}
	return task, complaint, err
}

func cancelled(ctx context.Context, b *trial) (string, error) {
	task, complaint, err := sleeping(ctx, b, 60)
	if complaint != "" || err != nil {
		return complaint, err
	}
	if _, err := b.API.Cancel(ctx, task, "checked"); err != nil {
		return "", err
	}
	_, complaint, err = b.runs(ctx, "echo", map[string]any{"value": 1}, vocab.TaskComplete, lease+5*time.Second)
	if complaint != "" {
		complaint = "its step was cancelled, but it claimed no other: stop a step when tasker_worker_heartbeat returns cancel_requested. " + complaint
	}
	return complaint, err
}

func leaseLost(ctx context.Context, b *trial) (string, error) {
	task, complaint, err := sleeping(ctx, b, 1.5*lease.Seconds())
	if complaint != "" || err != nil {
		return complaint, err
	}
	var verdict string
	err = b.Pool.QueryRow(ctx, `
select r.verdict from tasker_workflow_steps s
 cross join lateral tasker_worker_release(tasker_step_uuid(s.task_uuid, s.step_no), s.lease_id, '0 s', 'taken away by the check') r
 where s.task_uuid = $1 and s.state = 'in_progress'`, task).Scan(&verdict)
	if err != nil {
		return "", fmt.Errorf("revoke the lease: %w", err)
	}
	complaint, err = b.ends(ctx, task, vocab.TaskComplete, b.Patience)
	if complaint != "" {
		complaint = "after its lease was revoked: " + complaint
	}
	return complaint, err
}

func stopped(ctx context.Context, b *trial) (string, error) {
	task, complaint, err := sleeping(ctx, b, 60)
	if complaint != "" || err != nil {
		return complaint, err
	}
	b.terminate()
	if !b.exits(stopTime) {
		return fmt.Sprintf("the worker is still running %v after SIGTERM", stopTime), nil
	}
	step, err := b.first(ctx, task)
	if err != nil {
		return "", err
	}
	if step.State == vocab.StepInProgress {
		return "the worker exited without giving its step back, which now waits until the lease expires: call tasker_worker_release", nil
	}
	return "", nil
}
