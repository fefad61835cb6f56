package bench

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// The server can wait before each flush of its log while it holds the lock that
// others need to flush: to them, the disk looks slower. It waits only if enough other
// transactions are in progress; without the second setting, an idle server never would.
// The settings of the flushing session decide, so it is enough to set them in the
// hosts' sessions. The server's own processes flush without delay.
const (
	delaySetting    = "commit_delay" // microseconds
	siblingsSetting = "commit_siblings"
	maxFlushDelay   = 100 * time.Millisecond // the maximum that the server accepts
)

// flush compares the disk as it is with a disk whose flushes are delayed.
func (m *measurement) flush() error {
	micros := strconv.FormatInt(m.options.FlushDelay.Microseconds(), 10)
	if err := m.mayDelay(micros); err != nil {
		return err
	}
	first, err := m.loads()
	if err != nil {
		return err
	}
	if _, err := m.idleLatency(); err != nil {
		return err
	}
	before := m.report.LatencyMS
	if m.Site, err = m.Restart(m.ctx, map[string]string{delaySetting: micros, siblingsSetting: "0"}); err != nil {
		return fmt.Errorf("start hosts with delayed flushes: %w", err)
	}
	if err := m.delays(micros); err != nil {
		return err
	}
	second, err := m.loads()
	if err != nil {
		return err
	}
	m.compared(first, second)
	m.report.BaselineLatencyMS, m.report.FlushDelayMS = &before, float64(m.options.FlushDelay.Microseconds())/1000
	_, err = m.idleLatency()
	return err
}

// mayDelay returns an error if flushes cannot be delayed here.
func (m *measurement) mayDelay(micros string) error {
	const sqlTry = `select current_user, current_setting('fsync') = 'on'`
	var role string
	var fsync bool
	if err := m.Pool.QueryRow(m.ctx, sqlTry).Scan(&role, &fsync); err != nil {
		return fmt.Errorf("check whether flushes can be delayed: %w", err)
	}
	if !fsync {
		return errors.New("the server does not flush (fsync is off), so flushes cannot be delayed")
	}
	const sqlSet = `select set_config($1::text, $2::text, true)` // for this statement only
	_, err := m.Pool.Exec(m.ctx, sqlSet, delaySetting, micros)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == pgerrcode.InsufficientPrivilege {
		return fmt.Errorf("%s may not set %s, which delays flushes: measure as a superuser, "+
			"or let a superuser run: grant set on parameter %s to %s", role, delaySetting, delaySetting, role)
	}
	if err != nil {
		return fmt.Errorf("check whether flushes can be delayed: %w", err)
	}
	return nil
}

// delays checks that the hosts' sessions have the delay: a pooler between them and the
// server may not pass it on.
func (m *measurement) delays(micros string) error {
	const sqlSetting = `select setting from pg_settings where name = $1`
	for _, pool := range m.Pools {
		var now string
		if err := pool.QueryRow(m.ctx, sqlSetting, delaySetting).Scan(&now); err != nil {
			return fmt.Errorf("check whether flushes are delayed: %w", err)
		}
		if now != micros {
			return fmt.Errorf("the hosts' sessions have %s = %s, not %s: connect to the server directly, without a pooler", delaySetting, now, micros)
		}
	}
	return nil
}
