package migrations

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
)

// Querier reads from a database: a pool, a connection or a transaction of pgx.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Migration is one numbered file that this binary, the database or both know.
type Migration struct {
	Version   int64
	Name      string
	AppliedAt time.Time // zero: not applied
	Known     bool      // this binary carries it
	Changed   bool      // its content differs from what was applied
}

// Applied reports whether the database has it.
func (m Migration) Applied() bool { return !m.AppliedAt.IsZero() }

// NewerError says that the schema is newer than this binary, which must not
// write to it.
type NewerError struct{ Database, Binary int64 }

func (e *NewerError) Error() string {
	return fmt.Sprintf("the database has schema version %d, this program knows versions up to %d: use a newer program",
		e.Database, e.Binary)
}

// PendingError says that the schema is older than this binary.
type PendingError struct{ Database, Binary int64 }

func (e *PendingError) Error() string {
	return fmt.Sprintf("the database has schema version %d, this program needs %d: run `tasker migrate`", e.Database, e.Binary)
}

// ChangedError says that files were changed after they were applied, so that
// the schema is not what this binary expects.
type ChangedError struct{ Names []string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("the schema was created by other versions of %s: a migration must not change after its release; "+
		"use the program that created the schema, or give this one a database of its own", strings.Join(e.Names, ", "))
}

// Status lists all migrations in order of their versions. It changes nothing.
func Status(ctx context.Context, db Querier) ([]Migration, error) {
	s, err := embeddedSeries()
	if err != nil {
		return nil, err
	}
	return s.status(ctx, db)
}

// Check reports whether this binary may work with the database. The error is a
// [*NewerError], a [*PendingError], a [*ChangedError], an error of the database, or
// one that says what kind of server it is or what the server lacks.
func Check(ctx context.Context, db Querier) error {
	if err := checkServer(ctx, db); err != nil {
		return err
	}
	s, err := embeddedSeries()
	if err != nil {
		return err
	}
	all, err := s.status(ctx, db)
	if err != nil {
		return err
	}
	return s.check(all, true)
}

// checkServer refuses a server that the schema is not made for.
func checkServer(ctx context.Context, db Querier) error {
	var number int
	var version, encoding string
	err := db.QueryRow(ctx, `select current_setting('server_version_num')::integer, current_setting('server_version'), current_setting('server_encoding')`).
		Scan(&number, &version, &encoding)
	switch {
	case err != nil:
		return fmt.Errorf("read the server's settings: %w", err)
	case number < pgcluster.MinMajor*10000:
		return fmt.Errorf("the server is PostgreSQL %s: want %d or later", version, pgcluster.MinMajor)
	case encoding != "UTF8":
		return fmt.Errorf("the database's encoding is %s: JSON needs UTF8; create the database with encoding 'UTF8'", encoding)
	}
	return nil
}

func (s *series) status(ctx context.Context, db Querier) ([]Migration, error) {
	all := make([]Migration, 0, len(s.files))
	for _, f := range s.files {
		all = append(all, Migration{Version: f.version, Name: f.name, Known: true})
	}
	var exists bool
	if err := db.QueryRow(ctx, ledgerExistsSQL).Scan(&exists); err != nil {
		return nil, fmt.Errorf("look for %s: %w", ledgerTable, err)
	}
	if !exists {
		return all, nil
	}
	rows, err := db.Query(ctx, listLedgerSQL)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ledgerTable, err)
	}
	defer rows.Close()
	for rows.Next() {
		var m Migration
		var checksum string
		if err := rows.Scan(&m.Version, &m.Name, &checksum, &m.AppliedAt); err != nil {
			return nil, fmt.Errorf("read %s: %w", ledgerTable, err)
		}
		if m.Version == 0 {
			continue
		}
		if f, ok := s.byVersion(m.Version); ok {
			i := slices.IndexFunc(all, func(o Migration) bool { return o.Version == m.Version })
			all[i].AppliedAt, all[i].Changed = m.AppliedAt, f.checksum != checksum
			continue
		}
		all = append(all, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", ledgerTable, err)
	}
	slices.SortFunc(all, func(a, b Migration) int { return int(a.Version - b.Version) })
	return all, nil
}

// check judges a status; a caller that is about to migrate accepts pending files.
func (s *series) check(all []Migration, current bool) error {
	var at int64
	var changed []string
	pending := false
	for _, m := range all {
		if m.Applied() {
			at = max(at, m.Version)
		}
		if m.Changed {
			changed = append(changed, m.Name)
		}
		pending = pending || !m.Applied()
		if !m.Known && m.Version <= s.latest() {
			changed = append(changed, m.Name)
		}
	}
	switch {
	case at > s.latest():
		return &NewerError{Database: at, Binary: s.latest()}
	case len(changed) > 0:
		return &ChangedError{Names: changed}
	case pending && current:
		return &PendingError{Database: at, Binary: s.latest()}
	}
	return nil
}
