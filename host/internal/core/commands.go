package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/bench"
	"github.com/tasker-systems/tasker-host/host/internal/cli"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
	"github.com/tasker-systems/tasker-host/host/internal/pluginset"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/systemd"
	"github.com/tasker-systems/tasker-host/host/internal/telemetry"
	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
	"github.com/tasker-systems/tasker-host/migrations/pgsession"
)

// Runtime returns the commands that need more than a client.
func Runtime() cli.Runtime {
	return cli.Runtime{Up: up, Migrate: migrate, Doctor: doctor, Bench: measure, BenchWorker: benchWorker, OpenAPI: api.OpenAPI, Demo: demo, CheckWorker: checkWorker}
}

// up runs a host until ctx ends.
func up(ctx context.Context, o cli.UpOptions) error {
	manager, err := systemd.FromEnvironment(os.Getenv)
	if err != nil {
		return err
	}
	c, err := load(o, func(l *telemetry.LogOptions) { l.Output = o.Log })
	if err != nil {
		return err
	}
	c.manager.manager = manager
	if err := c.Run(ctx, o.Abort); !errors.Is(err, errTold) {
		return err
	}
	return nil
}

// load creates a host from configuration files.
func load(o cli.UpOptions, change ...func(*telemetry.LogOptions)) (*Core, error) {
	cfg, err := config.Load(o.Config)
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
	c := New(Options{
		Config: cfg, Log: log, Reload: o.Reload,
		Load: func() (*config.Config, error) { return config.Load(o.Config) },
	})
	if err := c.selectPlugins(); err != nil {
		return nil, err
	}
	return c, nil
}

func newLogger(cfg *config.Config, change ...func(*telemetry.LogOptions)) (hclog.Logger, error) {
	o := telemetry.LogOptions{Level: cfg.System.LogLevel, Format: cfg.System.LogFormat, Output: os.Stderr}
	for _, f := range change {
		f(&o)
	}
	return telemetry.NewLogger(o)
}

// migrate brings a schema up to date, or only reports its status.
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
	if db.cluster == nil {
		if err := pgsession.Check(ctx, target); err != nil {
			return report, withFix(target, err)
		}
	}
	before, err := schemaReport(ctx, target)
	if err != nil || o.Status {
		return before, db.located(withFix(target, err))
	}
	if err := migrations.Up(ctx, target, log.Named("migrations")); err != nil {
		return report, withFix(target, err)
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
	if err := migrations.Check(ctx, conn); err != nil {
		if _, ok := errors.AsType[*migrations.PendingError](err); !ok { // pending migrations are part of the report
			return r, err
		}
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

// doctor runs the checks that need no running host.
func doctor(ctx context.Context, o config.Options) readmodel.DoctorReport {
	report := readmodel.NewDoctorReport()
	cfg, err := config.Load(o)
	if err != nil {
		report.Add(readmodel.DoctorCheck{Name: "configuration", Status: readmodel.DoctorFail, Message: err.Error(), Fix: "correct the keys named"})
		return report
	}
	report.Add(readmodel.DoctorCheck{Name: "configuration", Status: readmodel.DoctorOK, Message: "environment " + cfg.Environment})
	report.Add(pluginsCheck(cfg), databaseCheck(ctx, cfg))
	if c, asked := limitsCheck(cfg); asked {
		report.Add(c)
	}
	return report
}

func pluginsCheck(cfg *config.Config) readmodel.DoctorCheck {
	c := readmodel.DoctorCheck{Name: "plugins", Status: readmodel.DoctorOK}
	sel, err := pluginset.NewSelector(cfg.System.Plugins, cfg.Environment).Select()
	if errors.Is(err, os.ErrNotExist) {
		c.Status, c.Message = readmodel.DoctorWarn, "there is no "+cfg.System.Plugins+": without it a host runs no steps itself"
		c.Fix = "create plugins.toml, or set its path with system.plugins"
		return c
	}
	if err != nil {
		c.Status, c.Message, c.Fix = readmodel.DoctorFail, err.Error(), "correct plugins.toml, or choose another with system.plugins"
		return c
	}
	for i := range sel.Slots {
		if s := &sel.Slots[i]; s.Err != nil {
			c.Status, c.Message, c.Fix = readmodel.DoctorFail, fmt.Sprintf("plugin %s/%s: %v", s.Kind, s.Name, s.Err), "follow the message; the plugin is defined at "+s.Origin.String()
			return c
		}
	}
	c.Message = fmt.Sprintf("%d plugins in %s", len(sel.Slots), cfg.System.Plugins)
	return c
}

// limitsCheck reports how the limits of plugins would be enforced. Whether the host may
// create control groups is only known once it starts.
func limitsCheck(cfg *config.Config) (c readmodel.DoctorCheck, asked bool) {
	c = readmodel.DoctorCheck{Name: "limits", Status: readmodel.DoctorOK}
	plugins, err := config.LoadPlugins(cfg.System.Plugins, cfg.Environment)
	if err != nil {
		return c, false // another check reports it
	}
	groups := process.LookForGroups("/sys/fs/cgroup", "/proc/self/cgroup")
	var reports []string
	for i := range plugins.Specs {
		s := &plugins.Specs[i]
		limits := limitsOf(s)
		if !limits.Any() {
			continue
		}
		reports = append(reports, s.Slot()+": "+groups.Report(limits, nil))
		if !groups.Enforces(limits) {
			c.Status = readmodel.DoctorWarn
			c.Fix = "give the host a subtree of control groups (version 2) with the controllers cpu, memory and pids, as systemd's Delegate=yes does"
		}
	}
	c.Message = strings.Join(reports, "; ")
	return c, len(reports) > 0
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
		c.Message = fmt.Sprintf("private PostgreSQL %d from %s, data in %s", binaries.Major, binaries.Dir, cfg.Database.Embedded.StateDir)
		return c
	}
	target, err := pgx.ParseConfig(cfg.Database.URL.Reveal())
	if err != nil {
		return fail("the database url cannot be parsed", "correct DATABASE_URL")
	}
	target.ConnectTimeout = cfg.Database.ConnectTimeout
	conn, err := pgx.ConnectConfig(ctx, target)
	if err != nil {
		return fail(withFix(target, err).Error(), "")
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := pgsession.Check(ctx, target); errors.Is(err, pgsession.ErrShared) {
		return fail(withFix(target, err).Error(), "")
	}
	if err := migrations.Check(ctx, conn); err != nil {
		if _, pending := errors.AsType[*migrations.PendingError](err); pending {
			return fail(err.Error(), "run tasker migrate")
		}
		return fail(err.Error(), "") // the error itself says what to do
	}
	c.Message = fmt.Sprintf("PostgreSQL at %s:%d, schema up to date", target.Host, target.Port)
	return c
}

// measure runs a benchmark. Without a database URL it uses a private server, separate
// from the one that hosts use.
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
	options := BenchOptions{Config: cfg, Source: o.Config, Log: log, Force: o.Force, Options: bench.DefaultOptions()}
	b := &options.Options
	b.Workload, b.Tasks, b.Progress, b.InProcess = o.Workload, o.Tasks, o.Progress, o.InProcess
	b.Repeats, b.Samples, b.Window, b.Width, b.Share, b.Duration = o.Repeats, o.Samples, o.Window, o.Width, o.Share, o.Duration
	b.History, b.Namespaces, b.Workers, b.Claim, b.Way, b.Payload, b.Hosts = o.History, o.Namespaces, o.Workers, o.Claim, o.Way, o.Payload, o.Hosts
	b.FlushDelay = o.FlushDelay
	cfg.Engine.MaxSteps = max(cfg.Engine.MaxSteps, o.Width+2)
	if o.Profile != "" {
		if options.Profile, err = filepath.Abs(o.Profile); err != nil {
			return readmodel.BenchReport{}, fmt.Errorf("profile: %w", err)
		}
		if err := os.MkdirAll(options.Profile, 0o755); err != nil {
			return readmodel.BenchReport{}, fmt.Errorf("profile: %w", err)
		}
		if err := os.Setenv(profileVariable, options.Profile); err != nil { // the plugins inherit it
			return readmodel.BenchReport{}, fmt.Errorf("profile: %w", err)
		}
	}
	report, err := Bench(ctx, options)
	if outdated(cfg, err) {
		if err := discard(cfg, log); err != nil {
			return readmodel.BenchReport{}, err
		}
		report, err = Bench(ctx, options)
	}
	return report, err
}

// setStateDir moves everything that a host keeps to dir, for a host that must not
// interfere with another.
func setStateDir(cfg *config.Config, dir string) {
	cfg.System.StateDir = dir
	cfg.System.Socket = filepath.Join(dir, "tasker.sock")
	cfg.Database.Embedded.StateDir = filepath.Join(dir, "postgres")
}
