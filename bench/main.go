package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	var p plan
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	rounds := f.Int("rounds", 3, "number of rounds, in each of which every contender has one turn")
	f.DurationVar(&p.span, "span", 2*time.Second, "full load in each turn of a peer; the first quarter warms up")
	f.IntVar(&p.samples, "samples", 100, "latency samples in each turn")
	f.DurationVar(&p.waits, "waits", 2*time.Second, "time limit for these samples, for slow peers")
	f.IntVar(&p.steps, "steps", 80000, "steps at full load in each turn of the host, and in River's burn-down")
	limit := f.Duration("limit", 7*time.Minute, "time limit for the whole run: after the first round, none is started that would exceed it")
	only := f.String("only", "", "pattern: measure only contenders whose name and setting match it, and the host as shipped")
	docs := f.String("docs", "", "page to write the table to, between its markers")
	f.StringVar(&p.tasker, "tasker", "../bin/tasker", "path of the tasker binary")
	f.StringVar(&p.state, "state", "../.state/bench-peers", "directory for the private server; its contents are deleted")
	if err := f.Parse(args); err != nil {
		return err
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if *docs != "" {
		if err := checkPage(*docs); err != nil { // better now than in some minutes
			return err
		}
	}
	if p.state, err = filepath.Abs(p.state); err != nil {
		return err
	}
	if err := os.RemoveAll(p.state); err != nil {
		return fmt.Errorf("empty the state directory: %w", err)
	}
	s, err := startServer(ctx, filepath.Join(p.state, "postgres"), os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(ctx), os.RemoveAll(p.state)) }()
	busy := loadAverage()
	rows, err := compare(ctx, s, p, *rounds, *limit, pattern)
	if err != nil {
		return err
	}
	table := report{rows, s.setting, busy, time.Now()}.markdown()
	fmt.Println(table)
	if *docs != "" {
		return writePage(*docs, table)
	}
	return nil
}

// row is one contender in one shape.
type row struct {
	contender
	shape   shape
	results []result // one per round
}

// compare gives every contender a turn in each shape, in several rounds. Each round
// starts with a different one, so that what else the machine does affects all of them.
func compare(ctx context.Context, s *server, p plan, rounds int, limit time.Duration, only *regexp.Regexp) ([]*row, error) {
	rows := field(only)
	began := time.Now()
	for round := range rounds {
		if took := time.Since(began); round > 0 && took+took/time.Duration(round) > limit {
			fmt.Fprintf(os.Stderr, "stopping after %d rounds: another one would exceed %v\n", round, limit)
			break
		}
		for i := range rows {
			r := rows[(i+round*len(rows)/rounds)%len(rows)]
			result, err := r.take(ctx, s, r.shape, p)
			if err != nil {
				return nil, err
			}
			r.results = append(r.results, result)
			fmt.Fprintf(os.Stderr, "%5.0fs  round %d of %d  %-6s  %-11s  %-24s  %7.0f steps/s  p50 %7.1f ms\n",
				time.Since(began).Seconds(), round+1, rounds, r.shape.name, r.name, r.setting, result.stepsPerSecond, result.p50)
		}
	}
	return rows, nil
}

// field lists the contenders in each shape.
func field(only *regexp.Regexp) (rows []*row) {
	for _, sh := range []shape{chain, single} {
		for i, c := range contenders() {
			if slices.Contains(c.shapes, sh) && (i == 0 || only.MatchString(c.name+", "+c.setting)) {
				rows = append(rows, &row{contender: c, shape: sh})
			}
		}
	}
	return rows
}
