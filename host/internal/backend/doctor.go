package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/opstate"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/migrations"
)

// The values from which on the doctor warns, or worse.
const (
	minServer       = 150000
	skewWarn        = time.Second
	skewFail        = time.Minute
	transactionWarn = time.Minute
	transactionFail = time.Hour
	taskWarn        = 24 * time.Hour
	queueWarn       = 100_000
	deadRowsWarn    = 1_000_000
	countedLetters  = 10_000
	shownLimbo      = 100
	countedAstray   = 1_000_000
)

// Doctor implements [api.System]. What cannot be determined is a failed check of its
// own and does not prevent the other checks, but without a database there is little
// to check.
func (b *Backend) Doctor(ctx context.Context) (readmodel.DoctorReport, error) {
	report := readmodel.NewDoctorReport(b.stateCheck(), b.pluginCheck(), b.poolCheck())
	facts, err := b.Store.ServerFacts(ctx)
	if err != nil {
		report.Add(unknown("database", err))
		return report, nil
	}
	report.Add(serverChecks(&facts)...)
	for _, check := range []struct {
		name string
		look func(context.Context) (readmodel.DoctorCheck, error)
	}{
		{"schema", b.schemaCheck},
		{"pgmq", b.pgmqCheck},
		{"clock", b.clockCheck},
		{"hosts", b.hostsCheck},
		{"queues", b.queuesCheck},
		{"limbo", b.limboCheck},
		{"dead_letters", b.deadLettersCheck},
		{"oldest_task", b.oldestTaskCheck},
		{"leases", b.leasesCheck},
		{"disk", b.diskCheck},
		{"partitions", b.partitionsCheck},
	} {
		c, err := check.look(ctx)
		if err != nil {
			report.Add(unknown(check.name, err))
			continue
		}
		c.Name = check.name
		report.Add(c)
	}
	return report, nil
}

func good(name, format string, args ...any) readmodel.DoctorCheck {
	return readmodel.DoctorCheck{Name: name, Status: readmodel.DoctorOK, Message: fmt.Sprintf(format, args...)}
}

func warn(c readmodel.DoctorCheck, fix string) readmodel.DoctorCheck {
	c.Status, c.Fix = readmodel.DoctorWarn, fix
	return c
}

func fail(c readmodel.DoctorCheck, fix string) readmodel.DoctorCheck {
	c.Status, c.Fix = readmodel.DoctorFail, fix
	return c
}

// unknown is the check of something that could not be determined. The text of the error
// may be seen by anybody who may ask the doctor.
func unknown(name string, err error) readmodel.DoctorCheck {
	fix := "see the host's log"
	if class := store.Classify(err); class == store.Unavailable || class == store.Unknown {
		fix = "check that the database is running, reachable and not overloaded; 'tasker breaker list' shows the last failure"
	}
	return fail(good(name, "could not be checked: %s", err), fix)
}

func (b *Backend) stateCheck() readmodel.DoctorCheck {
	state := b.State.State()
	c := good("state", "the operational state is %s", state)
	if state != opstate.Normal {
		return warn(c, "the host takes no work in this state; see its log for the reason")
	}
	return c
}

func (b *Backend) pluginCheck() readmodel.DoctorCheck {
	all := b.Parts.Plugins.Status()
	var ill []string
	required, serves := false, map[[2]string]bool{}
	for i := range all {
		s := &all[i]
		if s.State == pluginhost.Serving {
			serves[[2]string{s.Kind, s.Name}] = true
			continue
		}
		text := fmt.Sprintf("%s/%s is %s", s.Kind, s.Name, s.State)
		if s.LastError != "" {
			text += " (" + s.LastError + ")"
		}
		ill = append(ill, text)
		required = required || s.Required
	}
	down := len(ill) > 0
	if b.Refused != nil {
		for _, no := range b.Refused() {
			ill = append(ill, fmt.Sprintf("the binary that plugins.toml names for %s/%s is not running: %s", no.Kind, no.Name, no.Message))
			down = down || !serves[[2]string{no.Kind, no.Name}]
		}
	}
	c := good("plugins", "%s", strings.Join(ill, "; "))
	const look = "'tasker plugin explain KIND/NAME' and the host's log say why a plugin is not serving"
	switch {
	case len(all) == 0 && len(ill) == 0:
		return warn(good("plugins", "no plugin is configured"), "without plugins only outside workers run steps")
	case len(ill) == 0:
		return good("plugins", "all %d plugins serve", len(all))
	case required:
		return fail(c, look+"; the host is not ready without its required plugins")
	case down:
		return warn(c, look+"; steps that need their handlers wait, or go to other hosts")
	default:
		return warn(c, "replace it with a binary that starts, or retry with 'tasker plugin apply'; until then the previous one keeps serving")
	}
}

func (b *Backend) poolCheck() readmodel.DoctorCheck {
	var ill []string
	pools := b.Pools()
	for _, p := range pools {
		if p.Message != "" { // a paused pool is healthy, but nobody should forget it
			ill = append(ill, p.Name+": "+p.Message)
		}
	}
	if len(ill) > 0 {
		return warn(good("pools", "%s", strings.Join(ill, "; ")),
			"see 'tasker pool show'; enlarge a pool with 'tasker pool set', resume a paused one with 'tasker pool resume'")
	}
	return good("pools", "all %d pools work", len(pools))
}

func serverChecks(f *store.ServerFacts) []readmodel.DoctorCheck {
	version := good("server_version", "PostgreSQL %s", f.Version)
	if f.VersionNum < minServer {
		version = fail(version, "upgrade to PostgreSQL 15 or later")
	}
	durability := good("durability", "fsync %s, full_page_writes %s, synchronous_commit %s",
		onOff(f.Fsync), onOff(f.FullPageWrites), f.SynchronousCommit)
	if !f.Fsync || !f.FullPageWrites || f.SynchronousCommit == "off" {
		durability = fail(durability, "a crash of the server can lose or damage tasks: set all of them to on")
	}
	writable := good("writable", "the server accepts writes")
	if f.InRecovery {
		writable = fail(good("writable", "the server is a read-only standby"), "connect to the primary")
	}
	encoding := good("encoding", "the encoding is %s", f.Encoding)
	if f.Encoding != "UTF8" {
		encoding = fail(encoding, "create the database with the encoding UTF8, which JSON needs")
	}
	return []readmodel.DoctorCheck{version, durability, writable, encoding, connectionsCheck(f), transactionsCheck(f)}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func connectionsCheck(f *store.ServerFacts) readmodel.DoctorCheck {
	c := good("connections", "%d of %d connections are in use", f.Connections, f.MaxConnections)
	const fix = "raise max_connections, or lower database.max_connections of the hosts"
	switch {
	case f.Connections >= f.MaxConnections-2:
		return fail(c, fix)
	case f.Connections*10 >= f.MaxConnections*8:
		return warn(c, fix)
	default:
		return c
	}
}

func transactionsCheck(f *store.ServerFacts) readmodel.DoctorCheck {
	c := good("transactions", "the oldest transaction is %s old", rounded(f.OldestTransaction))
	const fix = "dead rows cannot be removed while it is open, and queues slow down: find it in pg_stat_activity or pg_prepared_xacts and end it"
	switch {
	case f.OldestTransaction >= transactionFail:
		return fail(c, fix)
	case f.OldestTransaction >= transactionWarn:
		return warn(c, fix)
	default:
		return c
	}
}

func (b *Backend) schemaCheck(ctx context.Context) (readmodel.DoctorCheck, error) {
	err := b.Store.CheckSchema(ctx)
	_, newer := errors.AsType[*migrations.NewerError](err)
	_, pending := errors.AsType[*migrations.PendingError](err)
	_, changed := errors.AsType[*migrations.ChangedError](err)
	switch {
	case err == nil:
		return good("", "the schema is up to date"), nil
	case newer || pending || changed:
		return fail(good("", "%s", err), "run the version of the program that matches the schema, or migrate"), nil
	default:
		return readmodel.DoctorCheck{}, err
	}
}

func (b *Backend) pgmqCheck(ctx context.Context) (readmodel.DoctorCheck, error) {
	info, err := b.Store.PGMQ(ctx)
	if err != nil {
		return readmodel.DoctorCheck{}, err
	}
	c := good("", "pgmq: %s, version %s", info.Kind, orUnknown(info.Version))
	if len(info.Missing) > 0 {
		return fail(good("", "pgmq (%s) lacks %s", info.Kind, strings.Join(info.Missing, ", ")), "install pgmq 1.5.1 or later"), nil
	}
	if info.Kind == migrations.PGMQNone {
		return fail(good("", "there are no queues"), "run `tasker migrate`"), nil
	}
	return c, nil
}

func orUnknown(version string) string {
	if version == "" {
		return "unknown"
	}
	return version
}

func (b *Backend) clockCheck(ctx context.Context) (readmodel.DoctorCheck, error) {
	ahead, uncertainty, err := b.Store.ClockSkew(ctx, b.Now)
	if err != nil {
		return readmodel.DoctorCheck{}, err
	}
	c := good("", "the database's clock is %s ahead of the host's (±%s)",
		ahead.Round(time.Millisecond), uncertainty.Round(10*time.Microsecond))
	const fix = "synchronize the clocks of both machines with NTP"
	switch off := ahead.Abs() - uncertainty; {
	case off >= skewFail:
		return fail(c, fix), nil
	case off >= skewWarn:
		return warn(c, fix), nil
	default:
		return c, nil
	}
}

func rounded(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second)
}
