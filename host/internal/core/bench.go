package core

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/bench"
	"github.com/tasker-systems/tasker-host/host/internal/cli"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// BenchOptions specify what to measure and where.
type BenchOptions struct {
	Config *config.Config
	Source config.Options // source of Config, for a host in its own process
	Log    hclog.Logger
	// Plugin is the path of the benchmark's plugin; if empty, plugins/bench beside this
	// executable.
	Plugin string
	// Force allows measuring on a database that holds tasks of others.
	Force bool
	// Profile is the directory that profiles are written to; if empty, none are written.
	Profile string
	bench.Options
}

// ErrDatabaseInUse is returned if the database to be measured holds tasks that do not
// belong to the benchmark.
var ErrDatabaseInUse = errors.New("the database has other tasks; give the benchmark a database of its own, or use --force")

// benchWindow is the number of steps that the benchmark's plugin runs at once.
const benchWindow = 256

// Bench starts hosts that have no API and whose handlers run in plugin processes,
// measures them and stops them.
func Bench(ctx context.Context, o BenchOptions) (report readmodel.BenchReport, err error) {
	if o.Plugin == "" {
		self, err := os.Executable()
		if err != nil {
			return report, fmt.Errorf("find the benchmark's plugin: %w", err)
		}
		o.Plugin = filepath.Join(filepath.Dir(self), "plugins", "bench")
	}
	bed, err := openBenchBed(ctx, o)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, bed.close(ctx)) }()
	if err := bed.start(ctx, nil); err != nil {
		return report, err
	}
	if !o.Force {
		var other bool
		if err := bed.pool.QueryRow(ctx, sqlOtherTasks, bench.Namespace).Scan(&other); err != nil {
			return report, fmt.Errorf("look for other tasks: %w", err)
		} else if other {
			return report, ErrDatabaseInUse
		}
	}
	site := bed.site()
	if o.Profile == "" {
		return bench.Run(ctx, site, o.Options)
	}
	err = profiled(o.Profile, func() (err error) {
		report, err = bench.Run(ctx, site, o.Options)
		return err
	})
	return report, err
}

// profileVariable is the environment variable that tells the benchmark's plugin where to
// write its profiles.
const profileVariable = "TASKER_BENCH_PROFILE"

const stopBenchTimeout = 30 * time.Second

const sqlOtherTasks = `
select exists (select from tasker_tasks t
                 join tasker_task_namespaces ns on ns.namespace_id = t.namespace_id
                where ns.name <> $1::text and ns.name !~ ('^' || $1::text || '_\d+$'))`

// BenchWorkerURL is the environment variable from which a worker process of the benchmark
// reads its database URL, because anyone can read a command line.
const BenchWorkerURL = "TASKER_BENCH_WORKER_URL"

// benchWorker is the program of a worker process. It prints the number of steps it has
// settled, one number per line.
func benchWorker(ctx context.Context, o cli.BenchWorkerOptions) error {
	how := bench.Manner{Claim: o.Claim, Way: o.Way, Results: o.Results}
	return bench.Work(ctx, os.Getenv(BenchWorkerURL), "bench/"+strconv.Itoa(os.Getpid()), how, func(steps int) error {
		_, err := fmt.Println(steps)
		return err
	})
}

// benchWorkers starts worker processes: this program with another command.
func benchWorkers(ctx context.Context, database string, n int, how bench.Manner, recorded func(int), failed func(error)) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	stop = func() { cancel(); all.Wait() }
	for range n {
		cmd := exec.CommandContext(ctx, self, "bench", "worker", "--claim", strconv.Itoa(how.Claim), "--way", how.Way, "--results", how.Results) // this program
		cmd.Env = append(os.Environ(), BenchWorkerURL+"="+database)
		cmd.Stderr = os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = stopBenchTimeout
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			stop()
			return nil, fmt.Errorf("start a worker: %w", err)
		}
		all.Go(func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if steps, err := strconv.Atoi(strings.TrimSpace(lines.Text())); err == nil {
					recorded(steps)
				}
			}
			if err := cmd.Wait(); ctx.Err() == nil {
				failed(fmt.Errorf("a worker process has exited: %w", cmp.Or(err, errEnded)))
			}
		})
	}
	return stop, nil
}

var errEnded = errors.New("without being told to")

// benchWorkersInside runs the workers in this process.
func benchWorkersInside(ctx context.Context, database string, n int, how bench.Manner, recorded func(int), failed func(error)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			err := bench.Work(ctx, database, fmt.Sprintf("bench/%d", i+1), how, func(steps int) error { recorded(steps); return nil })
			if err != nil {
				failed(err)
			}
		})
	}
	return func() { cancel(); all.Wait() }
}
