package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

const (
	tokenColumns = `
       t.token_id, t.name, t.permissions, t.created_at, t.created_by, t.expires_at, t.revoked_at, coalesce(t.revoked_by, ''),
       case when t.revoked_at is not null then 'revoked' when t.expires_at <= clock_timestamp() then 'expired' else 'live' end`

	sqlCreateToken = `select` + tokenColumns + `
  from tasker_create_token($1::text, $2::text, $3::bytea, $4::text[], $5::text, $6::bigint) t`

	sqlListTokens = `select` + tokenColumns + `
  from tasker_tokens t order by t.created_at desc, t.token_id`

	sqlLiveTokens = `
select t.token_id, t.name, t.secret_hash, t.permissions, t.expires_at
  from tasker_tokens t where t.revoked_at is null and t.expires_at > clock_timestamp()`

	// By the id of a token, or by the name of the live one. If no live token has the
	// name, the latest that had it.
	sqlRevokeToken = `
with meant as (
  select token_id from tasker_tokens
   where token_id = $1::text or name = $1::text
   order by token_id = $1::text desc, revoked_at is null and expires_at > clock_timestamp() desc, created_at desc
   limit 1
   for update
)
update tasker_tokens t
   set revoked_at = coalesce(t.revoked_at, clock_timestamp()), revoked_by = coalesce(t.revoked_by, $2::text)
  from meant m where t.token_id = m.token_id
returning` + tokenColumns

	sqlRecordAudit = `
insert into tasker_audit (actor, action, subject, request_id, address, outcome, status)
values ($1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::integer)`

	sqlListAudit = `
select a.audit_id, a.recorded_at, a.actor, a.action, a.subject, a.request_id, a.address, a.outcome, a.status
  from tasker_audit a
 where ($1::text = '' or a.actor = $1::text) and ($2::bigint < 0 or a.audit_id < $2::bigint)
 order by a.audit_id desc
 limit $3::integer`
)

// NewToken is a token to be stored.
type NewToken struct {
	ID, Name    string
	Hash        []byte
	Permissions []string
	CreatedBy   string
	Life        time.Duration
}

// CreateToken stores a token. created is false if a live token has its name.
func (s *Store) CreateToken(ctx context.Context, n NewToken) (token readmodel.Token, created bool, err error) {
	rows, err := s.pool.Query(ctx, sqlCreateToken, n.ID, n.Name, n.Hash, n.Permissions, n.CreatedBy, int64(n.Life/time.Second))
	if err != nil {
		return token, false, fmt.Errorf("create token %s: %w", n.Name, err)
	}
	made, err := pgx.CollectRows(rows, scanToken)
	if err != nil {
		return token, false, fmt.Errorf("create token %s: %w", n.Name, err)
	}
	if len(made) == 0 {
		return token, false, nil
	}
	return made[0], true, nil
}

func scanToken(r pgx.CollectableRow) (t readmodel.Token, err error) {
	err = r.Scan(&t.ID, &t.Name, &t.Permissions, &t.CreatedAt, &t.CreatedBy, &t.ExpiresAt, &t.RevokedAt, &t.RevokedBy, &t.State)
	t.CreatedAt, t.ExpiresAt, t.RevokedAt = t.CreatedAt.UTC(), t.ExpiresAt.UTC(), utc(t.RevokedAt)
	return t, err
}

// ListTokens returns all tokens, newest first.
func (s *Store) ListTokens(ctx context.Context) ([]readmodel.Token, error) {
	rows, err := s.pool.Query(ctx, sqlListTokens)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanToken)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return list, nil
}

// LiveTokens returns the tokens that are neither revoked nor expired, for checking
// requests against them.
func (s *Store) LiveTokens(ctx context.Context) ([]auth.StoredToken, error) {
	rows, err := s.plain.Query(ctx, sqlLiveTokens)
	if err != nil {
		return nil, fmt.Errorf("read live tokens: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (t auth.StoredToken, err error) {
		err = r.Scan(&t.ID, &t.Name, &t.Hash, &t.Permissions, &t.ExpiresAt)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read live tokens: %w", err)
	}
	return list, nil
}

var _ auth.TokenSource = (*Store)(nil)

// RevokeToken revokes the token with an id or name. A token that is revoked already
// stays as it is. [ErrNotFound] if there is none.
func (s *Store) RevokeToken(ctx context.Context, idOrName, by string) (readmodel.Token, error) {
	rows, err := s.pool.Query(ctx, sqlRevokeToken, idOrName, by)
	if err != nil {
		return readmodel.Token{}, fmt.Errorf("revoke token: %w", err)
	}
	revoked, err := pgx.CollectRows(rows, scanToken)
	if err == nil && len(revoked) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return readmodel.Token{}, fmt.Errorf("revoke token: %w", err)
	}
	return revoked[0], nil
}

// RecordAudit adds an entry to the audit log.
func (s *Store) RecordAudit(ctx context.Context, e readmodel.AuditEntry) error {
	_, err := s.plain.Exec(ctx, sqlRecordAudit, e.Actor, e.Action, e.Subject, e.RequestID, e.Address, e.Outcome, e.Status)
	if err != nil {
		return fmt.Errorf("record what %s did: %w", e.Actor, err)
	}
	return nil
}

// ListAudit returns up to limit entries of the audit log, newest first: those of an
// actor (empty: everybody) with ids smaller than before (negative: all).
func (s *Store) ListAudit(ctx context.Context, actor string, before int64, limit int) ([]readmodel.AuditEntry, error) {
	rows, err := s.pool.Query(ctx, sqlListAudit, actor, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list the audit: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (e readmodel.AuditEntry, err error) {
		err = r.Scan(&e.ID, &e.At, &e.Actor, &e.Action, &e.Subject, &e.RequestID, &e.Address, &e.Outcome, &e.Status)
		e.At = e.At.UTC()
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the audit: %w", err)
	}
	return list, nil
}
