package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// result is the result of one turn of a contender.
type result struct {
	stepsPerSecond float64
	walPerStep     float64 // bytes
	cpuPerStep     float64 // microseconds, of everything that took part; zero: not measured
	p50, p99       float64 // milliseconds, of a single job on the idle system
	samples        int     // zero: latency was not measured
}

// plan determines how long a turn takes.
type plan struct {
	span    time.Duration // of full load; the first quarter is a warm-up
	samples int
	waits   time.Duration // time limit for measuring the latency
	steps   int           // steps in a turn of the host at full load, or in a burn-down
	tasker  string        // path of the program
	state   string        // a directory
}

// contender is a participant in one setting.
type contender struct {
	name    string
	setting string
	how     string // for the notes below the table
	shapes  []shape
	turn    turn
}

// turn measures a contender once, on its own database.
type turn interface {
	measure(ctx context.Context, s *server, url string, sh shape, p plan) (result, error)
}

// take runs a contender's turn.
func (c contender) take(ctx context.Context, s *server, sh shape, p plan) (r result, err error) {
	url, drop, err := s.database(ctx)
	if err == nil {
		if err = s.settle(ctx); err == nil {
			r, err = c.turn.measure(ctx, s, url, sh, p)
		}
		err = errors.Join(err, drop())
	}
	if err == nil && r.stepsPerSecond <= 0 {
		err = errors.New("nothing was measured")
	}
	if err != nil {
		return r, fmt.Errorf("%s, %s, %s: %w", c.name, c.setting, sh.name, err)
	}
	return r, nil
}

// Peers have as many steps in progress as the host in `tasker bench`, unless they do
// better with more, or more would only wait.
var (
	bulk   = intensity{steps: 8000, chunk: 250, feeders: 2}
	apiece = intensity{steps: 8000, chunk: 1, feeders: 64}
	backed = intensity{steps: 20000, chunk: 5000, feeders: 2}
	few    = intensity{steps: 2000, chunk: 250, feeders: 2}
	fewer  = intensity{steps: 1000, chunk: 125, feeders: 2}
)

// tunedConnections is the size of the tuned peers' pools: of 4 to 40, tried on two
// cores, it gave the highest rates.
const tunedConnections = 20

// contenders lists all contenders in the order of the first round; the others are
// compared with the first one.
func contenders() []contender {
	both, chains, singles := []shape{chain, single}, []shape{chain}, []shape{single}
	riverTuned := riverSetting{workers: 2000, cooldown: 2 * time.Millisecond, poll: 20 * time.Millisecond, connections: tunedConnections}
	inTransactions := func(s riverSetting) riverSetting { s.transactional = true; return s }
	riverDefault := riverSetting{workers: 100}
	all := []contender{
		{
			"Tasker Host", "as shipped", "`tasker bench` with default settings, handlers in a plugin process",
			both,
			taskerTurn{},
		},
		{
			"Tasker Host", "handlers in process", "`tasker bench --in-process`: handlers run inside the host, as those of the peers do",
			both,
			taskerTurn{inProcess: true},
		},
		{
			"River", "default, in transactions", "default settings, 100 workers as in its documentation; a job completes itself and inserts the next in one transaction",
			chains,
			peerTurn{fewer, startRiver(inTransactions(riverDefault))},
		},
		{
			"River", "default", "default settings, 100 workers as in its documentation",
			singles,
			peerTurn{fewer, startRiver(riverDefault)},
		},
		{
			"River", "tuned, in transactions", "the settings of its own benchmark (2,000 workers, fetches every 2 to 20 ms), a pool of 20 connections; " +
				"each job completes itself, and inserts the next, in one transaction",
			both,
			peerTurn{few, startRiver(inTransactions(riverTuned))},
		},
		{
			"River", "tuned", "the same settings without the transactions: River completes jobs in batches, up to 250 ms later, and after a crash, a job and all that follow it can run twice",
			chains,
			peerTurn{bulk, startRiver(riverTuned)},
		},
		{
			"River", "tuned", "the settings of its own benchmark, inserted 5,000 at a time; River completes jobs in batches, up to 250 ms later",
			singles,
			peerTurn{backed, startRiver(riverTuned)},
		},
		{
			"River", "burn-down", "the method of its own benchmark: all jobs are inserted before the clock starts; the others are timed from the first submission",
			singles,
			burnDown{riverTuned},
		},
		{
			"DBOS", "direct", "workflows run in the process that submits them, default settings (20 connections)",
			both,
			peerTurn{apiece, startDBOS(dbosSetting{})},
		},
		{
			"DBOS", "queue, default", "workflows through a DBOS queue, default settings; enqueued 250 per transaction",
			both,
			peerTurn{bulk, startDBOS(dbosSetting{queue: true})},
		},
		{
			"DBOS", "queue, tuned", "the same, polling queue and results every 5 ms instead of every second",
			both,
			peerTurn{bulk, startDBOS(dbosSetting{queue: true, poll: 5 * time.Millisecond})},
		},
	}
	if program, err := exec.LookPath("river"); err == nil {
		all = append(all, contender{
			"River", "`river bench`", "its own program, as found in PATH: `river bench --num-total-jobs`, which times the burn-down only", singles, riverBench{program},
		})
	}
	return all
}

// peerTurn is a turn of a peer in this process.
type peerTurn struct {
	intensity
	start func(ctx context.Context, url string, sh shape, t *tracker) (engine, error)
}

const stopTimeout = 30 * time.Second

// stop stops an engine, even if the context has ended.
func stop(ctx context.Context, e engine) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return e.stop(ctx)
}

func (pt peerTurn) measure(ctx context.Context, s *server, url string, sh shape, p plan) (r result, err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	t := newTracker(pt.window(sh), fail)
	e, err := pt.start(ctx, url, sh, t)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, stop(ctx, e)) }()
	if _, err := load(ctx, e, t, pt.intensity, p.span/4); err != nil {
		return r, fmt.Errorf("warm-up: %w", err)
	}
	if err := analyze(ctx, url); err != nil {
		return r, err
	}
	before, err := s.usage(ctx)
	if err != nil {
		return r, err
	}
	l, err := load(ctx, e, t, pt.intensity, p.span)
	if err != nil {
		return r, err
	}
	after, err := s.usage(ctx)
	if err != nil {
		return r, err
	}
	r = perStep(l.works*sh.steps, l.seconds, after.minus(before))
	all, err := latency(ctx, e, t, p.samples, p.waits)
	if err != nil {
		return r, err
	}
	r.p50, r.p99, r.samples = quantile(all, 0.5), quantile(all, 0.99), len(all)
	return r, nil
}

func perStep(steps int, seconds float64, u usage) result {
	n := float64(steps)
	return result{stepsPerSecond: n / seconds, walPerStep: u.walBytes / n, cpuPerStep: u.cpuMicros / n}
}
