package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	sdk "github.com/tasker-systems/tasker-host/sdk/client"
	"github.com/tasker-systems/tasker-host/sdk/task"
)

// bulkLines is how many tasks each of the two bulk submissions has.
const bulkLines = 1500

// TestBulk submits a file with the command line and as many tasks with the Go
// client to one host, which is killed when they are halfway. Both go on with the
// next host by themselves. Then the file and the tasks are submitted again, to the
// other host. Every line has made one task, and every task has run.
func TestBulk(t *testing.T) {
	t.Parallel()
	g := newGround(t, pace{0, 1})
	var file []string
	for n := range bulkLines {
		file = append(file, fmt.Sprintf(`{"namespace":"chaos","name":"single","context":{"n":%d}}`+"\n", n))
	}
	halfway := make(chan struct{}) // closed when the second half may be sent
	fifo := filepath.Join(g.sites[0].dir, "tasks.ndjson")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))

	b := bulkRecords{}
	var wg sync.WaitGroup
	wg.Go(func() { b.filled = fill(fifo, file, halfway) })
	wg.Go(func() { b.file, b.fileErr = g.sites[0].submitFile(t.Context(), fifo) })
	wg.Go(func() { b.calls, b.callsErr = submitCalls(t.Context(), g.hosts[0].Client, halfway) })
	eventually(t, patience, "both are under way", func() bool {
		return column[int](t, g.db, `select count(distinct left(k.idempotency_key, 3))::integer from tasker_idempotency_keys k`)[0] == 2
	})
	g.hosts[0].kill(t)
	g.gone = append(g.gone, g.hosts[0])
	close(halfway)
	g.hosts[0] = g.sites[0].start(t)
	wg.Wait()
	require.NoError(t, b.filled)
	require.NoError(t, b.fileErr)
	require.NoError(t, b.callsErr)
	require.Len(t, b.file, bulkLines)
	require.Len(t, b.calls, bulkLines)

	again, err := g.sites[1].submitFile(t.Context(), g.sites[1].write(t, "tasks.ndjson", strings.Join(file, "")))
	require.NoError(t, err)
	require.Equal(t, told(b.file), told(again), "the same file is answered with the same tasks")
	repeated, err := submitCalls(t.Context(), g.hosts[1].Client, halfway)
	require.NoError(t, err)
	require.Equal(t, told(b.calls), told(repeated))
	for _, a := range append(again, repeated...) {
		require.False(t, a.Created, "line %d has made another task", a.Line)
	}
	g.rest(t, b.submitter()).require(t)
	g.depart(t)
}

// bulkRecords is what came of both bulk submissions.
type bulkRecords struct {
	file, calls               []task.BulkAnswer
	filled, fileErr, callsErr error
}

// submitter writes down what was told as the other tests do.
func (b *bulkRecords) submitter() *submitter {
	s := newSubmitter()
	for prefix, answers := range map[string][]task.BulkAnswer{"cli": b.file, "api": b.calls} {
		for _, a := range answers {
			s.tasks = append(s.tasks, submitted{key: fmt.Sprintf("%s-%d", prefix, a.Line), shape: "single", outcome: accepted, task: a.TaskUUID})
		}
	}
	return s
}

// told is the task of each line.
func told(answers []task.BulkAnswer) map[int64]string {
	tasks := map[int64]string{}
	for _, a := range answers {
		tasks[a.Line] = a.TaskUUID
	}
	return tasks
}

// fill writes lines into a pipe: half of them at once, the others later.
func fill(fifo string, lines []string, halfway <-chan struct{}) error {
	pipe, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := pipe.WriteString(strings.Join(lines[:len(lines)/2], "")); err != nil {
		return err
	}
	<-halfway
	if _, err := pipe.WriteString(strings.Join(lines[len(lines)/2:], "")); err != nil {
		return err
	}
	return pipe.Close()
}

// submitFile submits a file with the command line, which must accept every line,
// and returns the answers.
func (s *site) submitFile(ctx context.Context, path string) ([]task.BulkAnswer, error) {
	r, err := s.command(ctx, "", "task", "submit", "--bulk", path, "--idempotency-key", "cli", "--json")
	if err != nil {
		return nil, err
	}
	if r.code != 0 {
		return nil, fmt.Errorf("submit %s: exit code %d: %s", path, r.code, r.err)
	}
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	var answers []task.BulkAnswer
	for _, line := range lines[:len(lines)-1] { // the last is the summary
		var a task.BulkAnswer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			return nil, fmt.Errorf("answer %q: %w", line, err)
		}
		answers = append(answers, a)
	}
	return answers, nil
}

// submitCalls submits tasks with the Go client, the second half later.
func submitCalls(ctx context.Context, c *client.Client, halfway <-chan struct{}) (answers []task.BulkAnswer, err error) {
	tasks := func(yield func(sdk.Submission) bool) {
		for n := range bulkLines {
			if n == bulkLines/2 {
				<-halfway
			}
			if !yield(sdk.Submission{Namespace: "chaos", Name: "single", Context: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n))}) {
				return
			}
		}
	}
	result, err := c.SubmitAll(ctx, tasks, sdk.BulkOptions{
		IdempotencyKey: "api", Answered: func(a task.BulkAnswer, _ []byte) { answers = append(answers, a) },
	})
	if err == nil && result.Refused > 0 {
		err = fmt.Errorf("%d lines were refused", result.Refused)
	}
	return answers, err
}
