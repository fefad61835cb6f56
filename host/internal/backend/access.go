package backend

import (
	"context"
	"errors"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/host/internal/store"
)

// Bearers recognizes tokens. Forget tells it that one was created or revoked.
type Bearers interface {
	Forget()
}

var _ Bearers = (*auth.Tokens)(nil)

// CreateToken implements [api.Tokens].
func (b *Backend) CreateToken(ctx context.Context, o api.TokenOrder) (readmodel.NewToken, error) {
	id, bearer, hash := auth.NewToken()
	token, created, err := b.Store.CreateToken(ctx, store.NewToken{
		ID: id, Name: o.Name, Hash: hash, Permissions: o.Permissions, CreatedBy: o.CreatedBy, Life: o.Life,
	})
	if err != nil {
		return readmodel.NewToken{}, inputFault(err)
	}
	if !created {
		return readmodel.NewToken{}, api.Conflict(api.CodeTokenExists,
			"a valid token named %s exists; revoke it first, or choose another name", o.Name)
	}
	b.Parts.Bearers.Forget()
	return readmodel.NewToken{Token: token, Bearer: bearer}, nil
}

// ListTokens implements [api.Tokens].
func (b *Backend) ListTokens(ctx context.Context) ([]readmodel.Token, error) {
	tokens, err := b.Store.ListTokens(ctx)
	return tokens, fault(err)
}

// RevokeToken implements [api.Tokens].
func (b *Backend) RevokeToken(ctx context.Context, idOrName, by string) (readmodel.Token, error) {
	token, err := b.Store.RevokeToken(ctx, idOrName, by)
	if errors.Is(err, store.ErrNotFound) {
		return token, api.NotFound(api.CodeTokenNotFound, "there is no token with the id or name %q; see 'tasker token list'", idOrName)
	}
	if err != nil {
		return token, inputFault(err)
	}
	b.Parts.Bearers.Forget()
	return token, nil
}

// RecordAudit implements [api.Audit].
func (b *Backend) RecordAudit(ctx context.Context, e readmodel.AuditEntry) error {
	return b.Store.RecordAudit(ctx, e)
}

// ListAudit implements [api.Audit].
func (b *Backend) ListAudit(ctx context.Context, q api.AuditQuery) ([]readmodel.AuditEntry, error) {
	entries, err := b.Store.ListAudit(ctx, q.Actor, q.Before, q.Limit)
	if err != nil {
		return nil, inputFault(err)
	}
	return entries, nil
}
