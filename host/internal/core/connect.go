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
)

// noConnection says in one line where no connection could be made, why, and what
// to do. Other errors, nil included, it returns as they are.
func noConnection(cfg *pgx.ConnConfig, err error) error {
	failed, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok {
		return err
	}
	// One line for each address that was tried: the last one will do.
	lines := strings.Split(strings.TrimSpace(failed.Error()), "\n")
	reason, fix := strings.TrimSpace(lines[len(lines)-1]), "start the server, or correct DATABASE_URL"
	if refused, ok := errors.AsType[*pgconn.PgError](failed); ok {
		reason = fmt.Sprintf("%s (SQLSTATE %s)", refused.Message, refused.Code)
		switch {
		case strings.HasPrefix(refused.Code, "53"):
			fix = "raise the server's max_connections, or lower database.max_connections of the hosts"
		case strings.HasPrefix(refused.Code, "28"), refused.Code == pgerrcode.InvalidCatalogName:
			fix = "correct DATABASE_URL"
		}
	}
	if strings.Contains(reason, "read only connection") {
		reason, fix = "the server is read-only", "name the primary in DATABASE_URL, or turn default_transaction_read_only off"
	}
	return fmt.Errorf("no connection to %s as %s: %s; %s",
		net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))), cfg.User, reason, fix)
}
