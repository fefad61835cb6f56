package core

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/bench"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/migrations"
)

// benchBed is the server being measured and the hosts that work on it. The hosts can be
// restarted while the server keeps running.
type benchBed struct {
	options  BenchOptions
	database *database
	pool     *pgxpool.Pool // separate from the hosts' own pools
	hosts    []*Core
}

// openBenchBed finds or starts the server. If the server is private, its schema is
// brought up to date here, as a host would do; to the hosts it is a server with an
// address like any other.
func openBenchBed(ctx context.Context, o BenchOptions) (*benchBed, error) {
	if err := makeStateDir(o.Config.System.StateDir); err != nil {
		return nil, err
	}
	db, err := openDatabase(ctx, o.Config, o.Log)
	if err != nil {
		return nil, err
	}
	b := &benchBed{options: o, database: db}
	if err := b.connect(ctx); err != nil {
		return nil, errors.Join(err, b.close(ctx))
	}
	return b, nil
}

func (b *benchBed) connect(ctx context.Context) error {
	if b.database.cluster != nil {
		cfg, err := pgx.ParseConfig(b.database.url)
		if err != nil {
			return fmt.Errorf("parse database url: %w", err)
		}
		if err := migrations.Up(ctx, cfg, b.options.Log.Named("migrations")); err != nil {
			return b.database.located(err)
		}
	}
	pool, err := pgxpool.New(ctx, b.database.url)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	b.pool = pool
	return nil
}

// start starts the hosts to be measured and stops those that ran before. Their sessions
// get the given settings in addition to their own.
func (b *benchBed) start(ctx context.Context, session map[string]string) error {
	if err := b.stop(ctx); err != nil {
		return err
	}
	database, err := withSession(b.database.url, session)
	if err != nil {
		return err
	}
	o := b.options
	if o.Workload == bench.Memory && !o.InProcess {
		return nil // its host is a separate process
	}
	for i := range max(o.Hosts, 1) {
		cfg := *o.Config
		cfg.Database.URL = config.NewSecret(database)
		if i > 0 {
			setStateDir(&cfg, filepath.Join(o.Config.System.StateDir, "host-"+strconv.Itoa(i+1)))
		}
		options := Options{Config: &cfg, Log: o.Log, NoAPI: true}
		if o.InProcess {
			options.InProcess = newBenchRunner()
		} else {
			plugin := config.PluginSpec{Kind: config.KindHandler, Name: "bench"}
			plugin.Path, plugin.Required, plugin.MaxInFlight, plugin.StartTimeout = o.Plugin, true, benchWindow, 10*time.Second
			if o.Profile != "" {
				plugin.Env = []string{profileVariable}
			}
			options.Plugins = []config.PluginSpec{plugin}
		}
		c := New(options)
		if err := c.Start(ctx); err != nil {
			return err
		}
		b.hosts = append(b.hosts, c)
	}
	return nil
}

// stop stops the hosts, even if ctx has ended.
func (b *benchBed) stop(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopBenchTimeout)
	defer cancel()
	for i := len(b.hosts) - 1; i >= 0; i-- {
		err = errors.Join(err, b.hosts[i].Stop(ctx))
	}
	b.hosts = nil
	return err
}

func (b *benchBed) close(ctx context.Context) error {
	err := b.stop(ctx)
	if b.pool != nil {
		b.pool.Close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopBenchTimeout)
	defer cancel()
	return errors.Join(err, b.database.stop(ctx))
}

// site returns the measurement's view of the running hosts.
func (b *benchBed) site() bench.Site {
	hosts, database := b.hosts, b.database.url
	templates := store.New(b.pool)
	s := bench.Site{
		Templates: templates, Pool: b.pool, MaxSteps: b.options.Config.Engine.MaxSteps,
		Apart: b.apart, Requests: b.options.Config.Orchestration.TaskRequestsQueue,
	}
	s.Pause = func(ctx context.Context, pause bool) error {
		_, err := templates.PauseQueue(ctx, bench.Namespace, pause, store.Operator{By: "bench"})
		return err
	}
	for _, c := range hosts {
		s.Engines, s.Pools = append(s.Engines, c.Engine), append(s.Pools, c.pool)
	}
	s.Plugins = func() (pids []int) {
		for _, c := range hosts {
			for _, p := range c.plugins.Status() {
				pids = append(pids, p.PID)
			}
		}
		return pids
	}
	s.Workers = func(ctx context.Context, n int, how bench.Manner, recorded func(int), failed func(error)) (func(), error) {
		how.Results = b.options.Config.Orchestration.StepResultsQueue
		if b.options.InProcess {
			return benchWorkersInside(ctx, database, n, how, recorded, failed), nil
		}
		return benchWorkers(ctx, database, n, how, recorded, failed)
	}
	s.Restart = func(ctx context.Context, session map[string]string) (bench.Site, error) {
		if err := b.start(ctx, session); err != nil {
			return bench.Site{}, err
		}
		return b.site(), nil
	}
	return s
}

// withSession returns the database address with server settings added for its sessions,
// in either of the two forms that PostgreSQL clients accept. Values must not contain
// spaces or quotes.
func withSession(database string, settings map[string]string) (string, error) {
	if len(settings) == 0 {
		return database, nil
	}
	if !strings.HasPrefix(database, "postgres://") && !strings.HasPrefix(database, "postgresql://") {
		for name, value := range settings {
			database += " " + name + "=" + value
		}
		return database, nil
	}
	u, err := url.Parse(database)
	if err != nil {
		return "", errors.New("parse database url: it is not a URL") // url's error would reveal the password
	}
	q := u.Query()
	for name, value := range settings {
		q.Set(name, value)
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}
