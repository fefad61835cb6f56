package backend

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// The values from which on the doctor warns.
const (
	longLease    = time.Hour   // of an outside worker: how long its step waits if the worker dies
	overdueLease = time.Minute // time since a lease expired, within which the sweep should have found it
	bloatedTable = 256 << 20   // bytes of dead rows that matter
	shownTables  = 3
)

// leasesCheck looks at leases that hold steps for long. Leases of hosts end with the
// host.
func (b *Backend) leasesCheck(ctx context.Context) (readmodel.DoctorCheck, error) {
	l, err := b.Store.WorkerLeases(ctx, longLease, overdueLease)
	if err != nil {
		return readmodel.DoctorCheck{}, err
	}
	c := good("", "outside workers hold %d leases", l.All)
	switch {
	case l.Overdue > 0:
		return fail(good("", "%d leases of outside workers have expired and were not given back", l.Overdue),
			"a running host gives them back within its sweep interval; see the hosts' logs"), nil
	case l.Long > 0:
		c.Message += fmt.Sprintf(", %d of them for more than %s at a time", l.Long, longLease)
		return warn(c, "if such a worker dies, its step waits that long: have it request shorter leases and send heartbeats"), nil
	default:
		return c, nil
	}
}

// diskCheck reports what takes the space, and whether it is dead rows.
func (b *Backend) diskCheck(ctx context.Context) (readmodel.DoctorCheck, error) {
	total, largest, err := b.Store.DiskUse(ctx, shownTables)
	if err != nil {
		return readmodel.DoctorCheck{}, err
	}
	var tables, bloated []string
	for _, t := range largest {
		tables = append(tables, t.Name+" "+size(t.Bytes))
		if t.Bytes >= bloatedTable && t.Dead > t.Live {
			bloated = append(bloated, t.Name)
		}
	}
	c := good("", "the database uses %s, most of it in %s", size(total), strings.Join(tables, ", "))
	if len(bloated) > 0 {
		return warn(c, "more than half of the rows of "+strings.Join(bloated, ", ")+
			" are dead: check that autovacuum keeps up and no old transaction is open"), nil
	}
	return c, nil
}

// partitionsCheck checks whether tasks are in the partitions for their time. Tasks that
// are not do no direct harm. But each new partition is created under a lock that everybody
// waits for, and the default partition is scanned under it.
func (b *Backend) partitionsCheck(ctx context.Context) (readmodel.DoctorCheck, error) {
	f, err := b.Store.Partitions(ctx, countedAstray)
	if err != nil {
		return readmodel.DoctorCheck{}, err
	}
	switch {
	case f.Missing > 0:
		return warn(good("", "%d of the partitions for today and tomorrow are missing: tasks go to the default partition", f.Missing),
			"the host's log says why it could not create them: a lock held by another session, or a role that may not create tables"), nil
	case f.Astray > 0:
		many := fmt.Sprint(f.Astray)
		if f.Astray == countedAstray {
			many += " or more"
		}
		return warn(good("", "tasks in the default partition: %s, created from %s to %s", many, f.First.UTC().Format(time.DateOnly), f.Last.UTC().Format(time.DateOnly)),
			"a host's clock was wrong, or partitions could not be created at the time. The tasks run and end like any others, and retention removes them; "+
				"if there are millions, have retention ('orchestration.retention') remove them before they slow down the creation of each partition"), nil
	default:
		return good("", "every task is in the partition for its time"), nil
	}
}

// size formats a number of bytes for people.
func size(bytes int64) string {
	const unit = 1024
	if bytes < unit {
		return fmt.Sprintf("%d B", bytes)
	}
	value, prefix := float64(bytes)/unit, 0
	for value >= unit {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[prefix])
}
