package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// burnDown is a turn of River by the method of its own benchmark: all jobs are inserted
// before the workers start, and only the work is timed.
type burnDown struct{ riverSetting }

func (b burnDown) measure(ctx context.Context, s *server, url string, sh shape, p plan) (r result, err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	t := newTracker(p.steps, fail)
	e, err := newRiver(ctx, url, b.riverSetting, sh, t)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, stop(ctx, e)) }()
	const chunk = 5000
	for left := p.steps; left > 0; left -= chunk {
		n := min(chunk, left)
		if err := errors.Join(t.enter(ctx, n), e.submit(ctx, n)); err != nil {
			return r, err
		}
	}
	if err := analyze(ctx, url); err != nil {
		return r, err
	}
	before, err := s.usage(ctx)
	if err != nil {
		return r, err
	}
	began := time.Now()
	if err := e.start(ctx); err != nil {
		return r, err
	}
	if err := t.awaitIdle(ctx); err != nil {
		return r, err
	}
	seconds := time.Since(began).Seconds()
	after, err := s.usage(ctx)
	if err != nil {
		return r, err
	}
	return perStep(p.steps, seconds, after.minus(before)), nil
}

// riverBench is a turn of River's own benchmark.
type riverBench struct{ program string }

func (b riverBench) measure(ctx context.Context, _ *server, url string, _ shape, p plan) (result, error) {
	if _, err := b.run(ctx, "migrate-up", "--database-url", url); err != nil {
		return result{}, err
	}
	said, err := b.run(ctx, "bench", "--database-url", url, "--num-total-jobs", strconv.Itoa(p.steps))
	if err != nil {
		return result{}, err
	}
	rate, err := riverBenchRate(said)
	return result{stepsPerSecond: rate}, err
}

func (b riverBench) run(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, b.program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", b.program, args[0], err, out)
	}
	return string(out), nil
}

// overall is in the last line that `river bench` prints.
var overall = regexp.MustCompile(`overall job/sec \[ *([0-9.]+) *\]`)

func riverBenchRate(said string) (float64, error) {
	m := overall.FindStringSubmatch(said)
	if m == nil {
		return 0, fmt.Errorf("river bench did not report its rate: %s", said)
	}
	return strconv.ParseFloat(m[1], 64)
}
