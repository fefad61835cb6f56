package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// result is what one turn of a contender has come to.
type result struct {
	stepsPerSecond float64
	walPerStep     float64 // bytes
	cpuPerStep     float64 // microseconds, of all that took part; zero: not measured
	p50, p99       float64 // milliseconds, of one work on the idle system
	samples        int     // zero: no latency was measured
}

// plan is how long a turn takes.
type plan struct {
	span    time.Duration // of full load; a quarter of it warms up
	samples int
	waits   time.Duration // at most, for the latency
	steps   int           // of full load in a turn of the host, or of a burn-down
	tasker  string        // the program
	state   string        // a directory
}

// contender is who takes part, in one setting.
type contender struct {
	name    string
	setting string
	how     string // for the notes below the table
	shapes  []shape
	turn    turn
}

// turn measures a contender once, on a database of its own.
type turn interface {
	measure(ctx context.Context, s *server, url string, sh shape, p plan) (result, error)
}

// take gives a contender its turn.
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

// Peers have as many steps under way as the host has in `tasker bench`, unless
// they do better with more, or more would only wait.
var (
	bulk   = intensity{steps: 8000, chunk: 250, feeders: 2}
	apiece = intensity{steps: 8000, chunk: 1, feeders: 64}
	backed = intensity{steps: 20000, chunk: 5000, feeders: 2}
	few    = intensity{steps: 2000, chunk: 250, feeders: 2}
	fewer  = intensity{steps: 1000, chunk: 125, feeders: 2}
)

// tunedConnections is the size of the pools of the tuned peers: from 4 to 40 were
// tried on two cores, and with fewer or more they did less.
const tunedConnections = 20

// contenders are all, in the order of the first round; the first is the one that
// the others are compared with.
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
			"Tasker Host", "handlers in process", "`tasker bench --in-process`: handlers inside of the host, as those of the peers are",
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
			"River", "tuned", "the same settings without the transactions: River completes jobs in batches, up to 250 ms later, and a crash can run a job and all behind it twice",
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
			"DBOS", "direct", "workflows started where they are submitted, default settings (20 connections)",
			both,
			peerTurn{apiece, startDBOS(dbosSetting{})},
		},
		{
			"DBOS", "queue, default", "workflows through a DBOS queue, default settings; enqueued 250 in a transaction",
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

// stop stops an engine, whatever has become of the context.
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
