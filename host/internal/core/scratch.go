package core

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
)

// The demo and the benchmark keep their private databases between runs because that makes
// the next run quicker. Their contents are worthless: a database left behind by another
// build is recreated rather than refused.

// startScratch starts a host on a private database whose contents are worthless.
func startScratch(ctx context.Context, o Options) (*Core, error) {
	c := New(o)
	err := c.Start(ctx)
	if outdated(o.Config, err) {
		if err := discard(o.Config, o.Log); err != nil {
			return nil, err
		}
		c = New(o)
		err = c.Start(ctx)
	}
	return c, err
}

// outdated reports whether a start failed because its private database belongs
// to another build of this program, or to another version of PostgreSQL.
func outdated(cfg *config.Config, err error) bool {
	if err == nil || !cfg.Database.URL.IsZero() {
		return false
	}
	_, changed := errors.AsType[*migrations.ChangedError](err)
	_, newer := errors.AsType[*migrations.NewerError](err)
	_, server := errors.AsType[*pgcluster.VersionError](err)
	return changed || newer || server
}

// discard removes the private database of a demo or a benchmark.
func discard(cfg *config.Config, log hclog.Logger) error {
	dir := cfg.Database.Embedded.StateDir
	log.Warn("the private database belongs to another build and is recreated", "dir", dir)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove a private database of another build: %w", err)
	}
	return nil
}
