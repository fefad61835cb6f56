package core

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tasker-systems/tasker-host/migrations/pgsession"
)

// withFix turns a connection failure into one line that says where, why, and what to do.
// It also adds what to do about poolers and about rights that the role lacks. It returns
// other errors, including nil, unchanged.
func withFix(cfg *pgx.ConnConfig, err error) error {
	if sqlState(err) == pgerrcode.InsufficientPrivilege {
		return fmt.Errorf("%w; connect as the role that owns database %s and its contents, not as %s", err, cfg.Database, cfg.User)
	}
	if errors.Is(err, pgsession.ErrShared) {
		return fmt.Errorf("%w; point DATABASE_URL at the server itself, or at a pooler in session mode", err)
	}
	failed, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok {
		return err
	}
	reason, fix := whyNoConnection(failed), "start the server, or correct DATABASE_URL"
	if refused, ok := errors.AsType[*pgconn.PgError](failed); ok {
		switch {
		case strings.HasPrefix(refused.Code, "53"):
			fix = "raise the server's max_connections, or lower database.max_connections of the hosts"
		case strings.HasPrefix(refused.Code, "28"), refused.Code == pgerrcode.InvalidCatalogName:
			fix = "correct DATABASE_URL"
		}
	}
	if reason == readOnly {
		fix = "point DATABASE_URL at the primary, or turn off default_transaction_read_only"
	}
	return fmt.Errorf("no connection to %s as %s: %s; %s",
		net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))), cfg.User, reason, fix)
}

const readOnly = "the server is read-only"

// whyNoConnection returns the cause in one line. The error has a line for each address
// that was tried; the last one is used.
func whyNoConnection(failed *pgconn.ConnectError) string {
	if refused, ok := errors.AsType[*pgconn.PgError](failed); ok {
		return fmt.Sprintf("%s (SQLSTATE %s)", refused.Message, refused.Code)
	}
	lines := strings.Split(strings.TrimSpace(failed.Error()), "\n")
	reason := strings.TrimSpace(lines[len(lines)-1])
	if strings.Contains(reason, "read only connection") {
		return readOnly
	}
	return reason
}

// brief returns an error as one line, for tables. An error caused by a failed connection
// becomes just that: no connection could be made, and why.
func brief(err error) error {
	if failed, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return errors.New("no connection: " + whyNoConnection(failed))
	}
	return err
}
