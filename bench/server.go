package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
)

// settings of the private server: those of the host's private server, with room for the
// largest connection pool. Durability is PostgreSQL's default, and stated here for
// readers who look for it.
var settings = map[string]string{
	"fsync":              "on",
	"synchronous_commit": "on",
	"full_page_writes":   "on",
	"max_connections":    "200",
	"autovacuum_naptime": "10s",
	"checkpoint_timeout": "15min",
	"max_wal_size":       "4GB",
	"shared_buffers":     "256MB",
	"track_io_timing":    "off",
}

// server is the server on which all contenders are measured.
type server struct {
	cluster *pgcluster.Cluster // nil for a given server
	url     string             // URL of a database on it
	pool    *pgxpool.Pool
	made    atomic.Int64 // number of databases created
	setting setting      // as the host reports them
}

// startServer starts a private server in dir, or uses the given one.
func startServer(ctx context.Context, dir, given string) (*server, error) {
	s := &server{url: given}
	if given == "" {
		c, err := pgcluster.Start(ctx, pgcluster.Config{Dir: dir, Database: "peers", Settings: settings})
		if err != nil {
			return nil, err
		}
		s.cluster, s.url = c, c.DSN()
	}
	var err error
	if s.pool, err = pgxpool.New(ctx, s.url); err == nil {
		err = s.pool.Ping(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to the server: %w", err), s.stop(ctx))
	}
	return s, nil
}

func (s *server) stop(ctx context.Context) error {
	if s.pool != nil {
		s.pool.Close()
	}
	if s.cluster == nil {
		return nil
	}
	return s.cluster.Stop(context.WithoutCancel(ctx))
}

// database creates an empty one, and returns its URL and a function that drops it.
func (s *server) database(ctx context.Context) (string, func() error, error) {
	name := fmt.Sprintf("peers_%d_%d", os.Getpid(), s.made.Add(1))
	u, err := url.Parse(s.url)
	if err != nil {
		return "", nil, fmt.Errorf("the server's URL: %w", err)
	}
	u.Path = "/" + name
	quoted := pgx.Identifier{name}.Sanitize()
	if _, err := s.pool.Exec(ctx, "create database "+quoted); err != nil {
		return "", nil, fmt.Errorf("create database %s: %w", name, err)
	}
	drop := func() error {
		if _, err := s.pool.Exec(context.WithoutCancel(ctx), "drop database "+quoted+" with (force)"); err != nil {
			return fmt.Errorf("drop database %s: %w", name, err)
		}
		return nil
	}
	return u.String(), drop, nil
}

// settle writes out what earlier turns left to be written.
func (s *server) settle(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, "checkpoint"); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// usage is the WAL and CPU used until now. Only one contender runs at a time, so
// differences are its own.
type usage struct {
	walBytes  float64
	cpuMicros float64 // of this process, and of the server if it is on this machine
}

func (u usage) minus(o usage) usage { return usage{u.walBytes - o.walBytes, u.cpuMicros - o.cpuMicros} }

func (s *server) usage(ctx context.Context) (usage, error) {
	var u usage
	var backend int
	err := s.pool.QueryRow(ctx, "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8, pg_backend_pid()").Scan(&u.walBytes, &backend)
	if err != nil {
		return u, fmt.Errorf("read the WAL position: %w", err)
	}
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return u, fmt.Errorf("read the CPU time: %w", err)
	}
	u.cpuMicros = float64(own.Utime.Nano()+own.Stime.Nano())/1e3 + serverCPU(backend)
	return u, nil
}

// analyze gives the planner the statistics that it has after some time in use.
func analyze(ctx context.Context, url string) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if _, err := conn.Exec(ctx, "vacuum analyze"); err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	return nil
}

// stat is a line of /proc/PID/stat.
type stat struct {
	name       string
	parent     int
	own, ended float64 // microseconds; ended are those of its children that have ended
}

const microsPerTick = 1e6 / 100

func readStat(pid int) (stat, bool) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, false
	}
	open, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if open < 0 || end < open {
		return stat{}, false
	}
	f := strings.Fields(string(raw[end+1:])) // state ppid … utime stime cutime cstime
	if len(f) < 15 {
		return stat{}, false
	}
	parent, _ := strconv.Atoi(f[1])
	ticks := func(i int) float64 { v, _ := strconv.ParseFloat(f[i], 64); return v * microsPerTick }
	return stat{string(raw[open+1 : end]), parent, ticks(11) + ticks(12), ticks(13) + ticks(14)}, true
}

// serverCPU is the CPU of all processes of the server, given one of its backends; zero if
// it is on another machine.
func serverCPU(backend int) float64 {
	b, ok := readStat(backend)
	if !ok || !strings.HasPrefix(b.name, "postgres") {
		return 0
	}
	main, ok := readStat(b.parent)
	if !ok {
		return 0
	}
	sum := main.own + main.ended
	all, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, e := range all {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if p, ok := readStat(pid); ok && p.parent == b.parent {
				sum += p.own
			}
		}
	}
	return sum
}
