package cli

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func (a *app) workerCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the outside workers that have claimed steps, most recently seen first", Args: arguments(0, 0, ""),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			page, err := c.Workers(ctx)
			return a.answer(page, err, func() { a.listWorkers(page.Items) })
		}),
	}
	commands := []*cobra.Command{list}
	if a.rt.CheckWorker != nil {
		commands = append(commands, a.checkWorkerCommand())
	}
	return group("worker", "Show and check outside workers", "Show and check outside workers.\n\nOutside workers are programs, in any language, that claim and settle steps through SQL functions.", commands...)
}

func (a *app) listWorkers(workers []readmodel.Worker) {
	if len(workers) == 0 {
		a.printf("no outside worker has claimed a step yet\n")
		return
	}
	var t table
	t.header("WORKER", "NAMESPACE", "LAST SEEN", "RUNS", "DONE", "FAILED", "GAVE BACK", "LOST")
	count := func(n int64) cell { return text(strconv.FormatInt(n, 10)) }
	for i := range workers {
		w := &workers[i]
		t.add(text(w.Name), text(w.Namespace), text(when(w.LastSeenAt)), count(int64(w.Leases)), count(w.Done), count(w.Failed),
			count(w.Released), count(w.Lost))
	}
	a.printTable(&t)
}

func (a *app) checkWorkerCommand() *cobra.Command {
	var patience time.Duration
	cmd := &cobra.Command{
		Use: "check -- COMMAND [ARGUMENT...]", Short: "Check that an outside worker follows the protocol",
		Long: "Start a separate host and a private PostgreSQL, run COMMAND against them with DATABASE_URL, TASKER_NAMESPACE, TASKER_WORKER " +
			"and TASKER_LEASE set, and check what it does. The worker must serve the handlers check.echo, check.add, check.retry, " +
			"check.permanent, check.sleep and check.poison; docs/write-a-worker.md says what each must do. Exits with 1 if the worker does something wrong.",
		Example: "  tasker worker check -- ruby plugins/workers/ruby/worker.rb",
		Args:    arguments(1, -1, "a COMMAND, after --"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if patience < time.Second {
				return usagef("--patience %v is too short: want 1s or more", patience)
			}
			if _, err := exec.LookPath(args[0]); err != nil { // before a database is created for it
				return usagef("COMMAND: %w", err)
			}
			options, err := a.configOptions()
			if err != nil {
				return err
			}
			a.remark("starting a private PostgreSQL and a host")
			report, err := a.rt.CheckWorker(cmd.Context(), WorkerCheckOptions{
				Config: options, Command: args, Patience: patience, Progress: func(check string) { a.remark("%s …", check) },
			})
			if err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(report)
			} else {
				a.showWorkerReport(&report)
			}
			if err == nil && !report.Passed() {
				err = errShown
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&patience, "patience", 20*time.Second, "how long the worker may take for something that it should do at once")
	return cmd
}

func (a *app) showWorkerReport(r *readmodel.WorkerReport) {
	failed := 0
	for i := range r.Checks {
		c := &r.Checks[i]
		if c.Passed {
			a.printf("%s    %-12s %s\n", a.paint(green, "ok"), c.Name, c.Wants)
			continue
		}
		failed++
		a.printf("%s %-12s %s\n                    %s\n", a.paint(red, "wrong"), c.Name, c.Wants, oneLine(c.Complaint))
	}
	verdict := a.paint(green, "the worker passes all checks")
	if failed > 0 {
		verdict = a.paint(red, fmt.Sprintf("%d of %d checks failed", failed, len(r.Checks)))
	}
	a.printf("\n%s: %s\n", strings.Join(r.Command, " "), verdict)
}
