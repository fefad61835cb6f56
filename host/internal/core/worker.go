package core

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/cli"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/telemetry"
	"github.com/tasker-systems/tasker-host/host/internal/workercheck"
)

// checkedRole is the role of a worker while it is being checked: it may do what workers
// may do, and nothing else.
const checkedRole = "tasker_checked_worker"

const makeRoleSQL = `
do $$ begin if not exists (select from pg_roles where rolname = '` + checkedRole + `') then create role ` + checkedRole + `; end if; end $$`

// checkWorker checks an outside worker on its own private PostgreSQL, whatever database
// is configured.
func checkWorker(ctx context.Context, o cli.WorkerCheckOptions) (_ readmodel.WorkerReport, err error) {
	none := readmodel.WorkerReport{}
	cfg, err := config.Load(o.Config)
	if err != nil {
		return none, err
	}
	cfg.Database.URL = config.NewSecret("")
	setStateDir(cfg, filepath.Join(cfg.System.StateDir, "worker-check"))
	cfg.Orchestration.SweepInterval = 250 * time.Millisecond // so that lost leases are noticed soon
	log, err := newLogger(cfg, func(l *telemetry.LogOptions) { l.Level = "error" })
	if err != nil {
		return none, err
	}
	c, err := startScratch(ctx, Options{Config: cfg, Log: log})
	if err != nil {
		return none, err
	}
	defer func() { err = errors.Join(err, c.Stop(context.WithoutCancel(ctx))) }()
	for _, sql := range []string{makeRoleSQL, "select tasker_grant_worker('" + checkedRole + "', '" + workercheck.Namespace + "')"} {
		if _, err := c.pool.Exec(ctx, sql); err != nil {
			return none, fmt.Errorf("make the worker's role: %w", err)
		}
	}
	database, err := asRole(c.database.url, checkedRole)
	if err != nil {
		return none, err
	}
	api, err := client.New(client.Options{Socket: cfg.System.Socket})
	if err != nil {
		return none, err
	}
	defer api.Close()
	return workercheck.Run(ctx, workercheck.Config{Command: o.Command, Database: database, API: api, Pool: c.pool, Progress: o.Progress, Patience: o.Patience})
}

// asRole changes a connection string so that its sessions start with the given role.
func asRole(database, role string) (string, error) {
	u, err := url.Parse(database)
	if err != nil {
		return "", fmt.Errorf("parse database url: %w", err)
	}
	q := u.Query()
	q.Set("options", "-c role="+role)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // libpq takes a plus literally
	return u.String(), nil
}
