package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/host/internal/workflow"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// BenchmarkBatch creates tasks of four steps in a line and settles these, with the given
// number of tasks per statement: small batches show the fixed cost of a call, large ones
// what each task and step adds. The server does not wait for its disk.
//
//   - create-µs/task, settle-µs/step: the time of the calls, each transaction's
//     commit included
func BenchmarkBatch(b *testing.B) {
	for _, size := range []int{1, 10, 100, 500} {
		b.Run(fmt.Sprintf("tasks=%d", size), func(b *testing.B) {
			bed := newBed(b)
			plan := bed.mustPlan(b, chain(4)...)
			g := bed.grant(bed.host(b), size)
			var creating, settling time.Duration
			for b.Loop() {
				tasks := make([]store.NewTask, size)
				for i := range tasks {
					tasks[i] = newTask(plan)
				}
				began := time.Now()
				created, err := bed.store.CreateTasks(b.Context(), g, tasks, "")
				creating += time.Since(began)
				require.NoError(b, err)
				leases := make([]store.Lease, 0, size)
				for _, c := range created {
					leases = append(leases, c.Leases...)
				}
				for range plan.Steps {
					batch := make([]store.Settlement, len(leases))
					for i, l := range leases {
						batch[i] = settlement(l.StepKey, l.ID, vocab.OutcomeSuccess)
					}
					began = time.Now()
					settled, err := bed.store.Settle(b.Context(), g, policy, batch)
					settling += time.Since(began)
					require.NoError(b, err)
					leases = settled.Leases
				}
				require.Empty(b, leases)
			}
			n := float64(b.N * size)
			b.ReportMetric(float64(creating.Microseconds())/n, "create-µs/task")
			b.ReportMetric(float64(settling.Microseconds())/n/float64(len(plan.Steps)), "settle-µs/step")
		})
	}
}

// BenchmarkPartitions settles the only step of a task in a database with the given number
// of partitions per table.
//
//   - settle-µs: the least tenth's time of the call, its commit included
func BenchmarkPartitions(b *testing.B) {
	for _, n := range []int{4, 13, 34, 94} {
		b.Run(fmt.Sprintf("partitions=%d", n), func(b *testing.B) {
			bed := newBed(b)
			bed.exec(b, "select tasker_ensure_partitions(clock_timestamp() + interval '72 hours', $1)", n-2) // besides that of three days and the default
			plan := bed.mustPlan(b, chain(1)...)
			g := bed.grant(bed.host(b), 1)
			var took []time.Duration
			for b.Loop() {
				created, err := bed.store.CreateTasks(b.Context(), g, []store.NewTask{newTask(plan)}, "")
				require.NoError(b, err)
				l := created[0].Leases[0]
				began := time.Now()
				_, err = bed.store.Settle(b.Context(), g, policy, []store.Settlement{settlement(l.StepKey, l.ID, vocab.OutcomeSuccess)})
				took = append(took, time.Since(began))
				require.NoError(b, err)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/10].Microseconds()), "settle-µs")
		})
	}
}

// BenchmarkFailures settles first steps that fail, with the given number of tasks per
// statement: those that are tried again, and those that have failed for good.
//
//   - µs/step: the time of the call, its commit included
func BenchmarkFailures(b *testing.B) {
	for _, outcome := range []vocab.Outcome{vocab.OutcomeRetryable, vocab.OutcomePermanent} {
		for _, size := range []int{1, 10, 100, 500} {
			b.Run(fmt.Sprintf("%s/tasks=%d", outcome, size), func(b *testing.B) {
				bed := newBed(b)
				steps := chain(2)
				steps[0].Retry = workflow.Retry{Retryable: true, MaxAttempts: 3, Backoff: workflow.BackoffFixed, Base: time.Minute, Cap: time.Minute}
				plan := bed.mustPlan(b, steps...)
				g := bed.grant(bed.host(b), size)
				var settling time.Duration
				for b.Loop() {
					tasks := make([]store.NewTask, size)
					for i := range tasks {
						tasks[i] = newTask(plan)
					}
					created, err := bed.store.CreateTasks(b.Context(), g, tasks, "")
					require.NoError(b, err)
					batch := make([]store.Settlement, size)
					for i, c := range created {
						batch[i] = settlement(c.Leases[0].StepKey, c.Leases[0].ID, outcome)
					}
					began := time.Now()
					_, err = bed.store.Settle(b.Context(), g, policy, batch)
					settling += time.Since(began)
					require.NoError(b, err)
				}
				b.ReportMetric(float64(settling.Microseconds())/float64(b.N*size), "µs/step")
			})
		}
	}
}
