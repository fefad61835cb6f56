package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/bench"
	"github.com/tasker-systems/tasker-host/host/internal/cli"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/telemetry"
	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
)

// Runtime returns the commands that need more than a client.
func Runtime() cli.Runtime {
	return cli.Runtime{Up: up, Migrate: migrate, Doctor: doctor, Bench: measure, OpenAPI: api.OpenAPI, Demo: demo}
}

// up runs a host until ctx ends.
func up(ctx context.Context, o cli.UpOptions) error {
	c, err := load(o.Config, func(l *telemetry.LogOptions) { l.Output = o.Log })
	if err != nil {
		return err
	}
	return c.Run(ctx, o.Abort)
}

// load makes a host of configuration files.
func load(o config.Options, change ...func(*telemetry.LogOptions)) (*Core, error) {
	cfg, err := config.Load(o)
	if err != nil {
		return nil, err
	}
	log, err := newLogger(cfg, change...)
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Warnings {
		log.Warn("configuration", "warning", w)
	}
	plugins, err := loadPlugins(cfg, log)
	if err != nil {
		return nil, err
	}
	return New(Options{Config: cfg, Plugins: plugins, Log: log}), nil
}

func newLogger(cfg *config.Config, change ...func(*telemetry.LogOptions)) (hclog.Logger, error) {
	o := telemetry.LogOptions{Level: cfg.System.LogLevel, Format: cfg.System.LogFormat, Output: os.Stderr}
	for _, f := range change {
		f(&o)
	}
	return telemetry.NewLogger(o)
}

// loadPlugins reads plugins.toml. A host without the file runs: outside workers
// do the work then.
func loadPlugins(cfg *config.Config, log hclog.Logger) ([]config.PluginSpec, error) {
	specs, err := config.LoadPlugins(cfg.System.Plugins, cfg.Environment)
	if errors.Is(err, os.ErrNotExist) {
		log.Warn("there is no plugins.toml: this host runs no steps itself", "path", cfg.System.Plugins)
		return nil, nil
	}
	return specs, err
}

// migrate brings a schema up to date, or tells where it stands.
func migrate(ctx context.Context, o cli.MigrateOptions) (report readmodel.MigrationReport, err error) {
	cfg, err := config.Load(o.Config)
	if err != nil {
		return report, err
	}
	log, err := newLogger(cfg)
	if err != nil {
		return report, err
	}
	db, err := openDatabase(ctx, cfg, log)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, db.stop(context.WithoutCancel(ctx))) }()
	target, err := pgx.ParseConfig(db.url)
	if err != nil {
		return report, fmt.Errorf("parse database url: %w", err)
	}
	target.ConnectTimeout = cfg.Database.ConnectTimeout
	before, err := schemaReport(ctx, target)
	if err != nil || o.Status {
		return before, err
	}
	if err := migrations.Up(ctx, target, log.Named("migrations")); err != nil {
		return report, err
	}
	report, err = schemaReport(ctx, target)
	report.Applied = before.Pending
	return report, err
}

func schemaReport(ctx context.Context, target *pgx.ConnConfig) (r readmodel.MigrationReport, err error) {
	conn, err := pgx.ConnectConfig(ctx, target)
	if err != nil {
		return r, fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	all, err := migrations.Status(ctx, conn)
	if err != nil {
		return r, err
	}
	queues, err := migrations.PGMQ(ctx, conn)
	if err != nil {
		return r, err
	}
	r.PGMQ = string(queues.Kind)
	for _, m := range all {
		if m.Known {
			r.Latest = max(r.Latest, m.Version)
		}
		if m.Applied() {
			r.Version = max(r.Version, m.Version)
		} else {
			r.Pending = append(r.Pending, readmodel.Migration{Version: m.Version, Name: m.Name})
		}
	}
	return r, nil
}

// doctor checks what can be checked without a running host.
func doctor(ctx context.Context, o config.Options) readmodel.DoctorReport {
	report := readmodel.NewDoctorReport()
	cfg, err := config.Load(o)
	if err != nil {
		report.Add(readmodel.DoctorCheck{Name: "configuration", Status: readmodel.DoctorFail, Message: err.Error(), Fix: "correct the keys named"})
		return report
	}
	report.Add(readmodel.DoctorCheck{Name: "configuration", Status: readmodel.DoctorOK, Message: "environment " + cfg.Environment})
	report.Add(pluginsCheck(cfg), databaseCheck(ctx, cfg))
	return report
}

func pluginsCheck(cfg *config.Config) readmodel.DoctorCheck {
	c := readmodel.DoctorCheck{Name: "plugins", Status: readmodel.DoctorOK}
	specs, err := config.LoadPlugins(cfg.System.Plugins, cfg.Environment)
	if errors.Is(err, os.ErrNotExist) {
		c.Status, c.Message = readmodel.DoctorWarn, "there is no "+cfg.System.Plugins+": a host runs no steps itself"
		c.Fix = "write plugins.toml, or name it with system.plugins"
		return c
	}
	if err != nil {
		c.Status, c.Message, c.Fix = readmodel.DoctorFail, err.Error(), "correct plugins.toml, or name another with system.plugins"
		return c
	}
	for _, s := range specs {
		if _, err := os.Stat(s.Path); err != nil {
			c.Status, c.Message, c.Fix = readmodel.DoctorFail, fmt.Sprintf("plugin %s: %v", s.Name, err), "build the plugin, or correct its path at "+s.Origin.String()
			return c
		}
	}
	c.Message = fmt.Sprintf("%d plugins in %s", len(specs), cfg.System.Plugins)
	return c
}

func databaseCheck(ctx context.Context, cfg *config.Config) readmodel.DoctorCheck {
	c := readmodel.DoctorCheck{Name: "database", Status: readmodel.DoctorOK}
	fail := func(message, fix string) readmodel.DoctorCheck {
		c.Status, c.Message, c.Fix = readmodel.DoctorFail, message, fix
		return c
	}
	if cfg.Database.URL.IsZero() {
		binaries, err := pgcluster.FindBinaries(cfg.Database.Embedded.BinDir, 0)
		if err != nil {
			return fail(err.Error(), "install PostgreSQL 15 or later, or set DATABASE_URL")
		}
		c.Message = fmt.Sprintf("private PostgreSQL %d of %s, data in %s", binaries.Major, binaries.Dir, cfg.Database.Embedded.StateDir)
		return c
	}
	target, err := pgx.ParseConfig(cfg.Database.URL.Reveal())
	if err != nil {
		return fail("the database url cannot be read", "correct DATABASE_URL")
	}
	target.ConnectTimeout = cfg.Database.ConnectTimeout
	conn, err := pgx.ConnectConfig(ctx, target)
	if err != nil {
		return fail(fmt.Sprintf("no connection to %s:%d: %v", target.Host, target.Port, err), "start the server, or correct DATABASE_URL")
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := migrations.Check(ctx, conn); err != nil {
		return fail(err.Error(), "run tasker migrate")
	}
	c.Message = fmt.Sprintf("PostgreSQL at %s:%d, schema up to date", target.Host, target.Port)
	return c
}

// measure runs a benchmark. Without a database url it has a private server of
// its own, beside the one of the hosts.
func measure(ctx context.Context, o cli.BenchOptions) (readmodel.BenchReport, error) {
	cfg, err := config.Load(o.Config)
	if err != nil {
		return readmodel.BenchReport{}, err
	}
	setStateDir(cfg, filepath.Join(cfg.System.StateDir, "bench"))
	log, err := newLogger(cfg, func(l *telemetry.LogOptions) { l.Level = "warn" })
	if err != nil {
		return readmodel.BenchReport{}, err
	}
	options := bench.DefaultOptions()
	options.Shape, options.Tasks, options.Progress = o.Shape, o.Tasks, o.Progress
	report, err := Bench(ctx, BenchOptions{Config: cfg, Log: log, Options: options})
	if outdated(cfg, err) {
		if err := discard(cfg, log); err != nil {
			return readmodel.BenchReport{}, err
		}
		report, err = Bench(ctx, BenchOptions{Config: cfg, Log: log, Options: options})
	}
	return report, err
}

// setStateDir moves everything that a host keeps, for one that must not meet
// another.
func setStateDir(cfg *config.Config, dir string) {
	cfg.System.StateDir = dir
	cfg.System.Socket = filepath.Join(dir, "tasker.sock")
	cfg.Database.Embedded.StateDir = filepath.Join(dir, "postgres")
}
