package migrations

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/pressly/goose/v3/database"
)

// ledgerTable records which files were applied. Version 0, with an empty name, is
// the empty schema, which goose requires.
const ledgerTable = "tasker_schema_migrations"

const (
	ledgerExistsSQL = `select to_regclass('tasker_schema_migrations') is not null`

	createLedgerSQL = `
create table tasker_schema_migrations (
  version    bigint primary key,
  name       text not null,
  checksum   text not null,
  applied_at timestamptz not null default clock_timestamp()
)`

	insertLedgerSQL = `insert into tasker_schema_migrations (version, name, checksum) values ($1, $2, $3)`
	deleteLedgerSQL = `delete from tasker_schema_migrations where version = $1`
	getLedgerSQL    = `select applied_at from tasker_schema_migrations where version = $1`
	latestLedgerSQL = `select max(version) from tasker_schema_migrations`
	listLedgerSQL   = `select version, name, checksum, applied_at from tasker_schema_migrations order by version`
)

// ledger is goose's view of the table: it writes the checksum in the
// transaction that applies the file.
type ledger struct{ series *series }

var _ database.StoreExtender = ledger{}

func (ledger) Tablename() string { return ledgerTable }

func (ledger) TableExists(ctx context.Context, db database.DBTxConn) (exists bool, err error) {
	err = db.QueryRowContext(ctx, ledgerExistsSQL).Scan(&exists)
	return exists, err
}

func (ledger) CreateVersionTable(ctx context.Context, db database.DBTxConn) error {
	_, err := db.ExecContext(ctx, createLedgerSQL)
	return err
}

func (l ledger) Insert(ctx context.Context, db database.DBTxConn, req database.InsertRequest) error {
	f, _ := l.series.byVersion(req.Version) // none for version 0
	_, err := db.ExecContext(ctx, insertLedgerSQL, req.Version, f.name, f.checksum)
	return err
}

func (ledger) Delete(ctx context.Context, db database.DBTxConn, version int64) error {
	_, err := db.ExecContext(ctx, deleteLedgerSQL, version)
	return err
}

func (ledger) GetMigration(ctx context.Context, db database.DBTxConn, version int64) (*database.GetMigrationResult, error) {
	var at time.Time
	err := db.QueryRowContext(ctx, getLedgerSQL, version).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, database.ErrVersionNotFound
	}
	if err != nil {
		return nil, err
	}
	return &database.GetMigrationResult{Timestamp: at, IsApplied: true}, nil
}

func (ledger) GetLatestVersion(ctx context.Context, db database.DBTxConn) (int64, error) {
	var version sql.NullInt64
	if err := db.QueryRowContext(ctx, latestLedgerSQL).Scan(&version); err != nil {
		return 0, err
	}
	if !version.Valid {
		return 0, database.ErrVersionNotFound
	}
	return version.Int64, nil
}

func (ledger) ListMigrations(ctx context.Context, db database.DBTxConn) ([]*database.ListMigrationsResult, error) {
	rows, err := db.QueryContext(ctx, `select version from tasker_schema_migrations order by version desc`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []*database.ListMigrationsResult
	for rows.Next() {
		m := &database.ListMigrationsResult{IsApplied: true}
		if err := rows.Scan(&m.Version); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, rows.Err()
}
