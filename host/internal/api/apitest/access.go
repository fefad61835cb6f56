package apitest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// CreateToken implements api.Tokens. The bearer is not random here.
func (b *Backend) CreateToken(_ context.Context, o api.TokenOrder) (readmodel.NewToken, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return readmodel.NewToken{}, b.fail
	}
	for _, t := range b.tokens {
		if t.Name == o.Name && t.State == readmodel.TokenLive {
			return readmodel.NewToken{}, api.Conflict(api.CodeTokenExists, "there is a token %s that works", o.Name)
		}
	}
	id := fmt.Sprintf("token%07d", len(b.tokens)+1)
	now := *b.now()
	t := readmodel.Token{
		ID: id, Name: o.Name, Permissions: o.Permissions, CreatedAt: now, CreatedBy: o.CreatedBy,
		ExpiresAt: now.Add(o.Life), State: readmodel.TokenLive,
	}
	b.tokens = append(b.tokens, t)
	return readmodel.NewToken{Token: t, Bearer: "tsk_" + id + "_" + strings.Repeat("s", 26)}, nil
}

// ListTokens implements api.Tokens.
func (b *Backend) ListTokens(context.Context) ([]readmodel.Token, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	newest := slices.Clone(b.tokens)
	slices.Reverse(newest)
	return newest, b.fail
}

// RevokeToken implements api.Tokens.
func (b *Backend) RevokeToken(_ context.Context, idOrName, by string) (readmodel.Token, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.tokens {
		t := &b.tokens[i]
		if t.ID != idOrName && t.Name != idOrName {
			continue
		}
		if t.State == readmodel.TokenLive {
			t.State, t.RevokedAt, t.RevokedBy = readmodel.TokenRevoked, b.now(), by
		}
		return *t, b.fail
	}
	return readmodel.Token{}, api.NotFound(api.CodeTokenNotFound, "there is no token with the id or name %q; see 'tasker token list'", idOrName)
}

// RecordAudit implements api.Audit.
func (b *Backend) RecordAudit(_ context.Context, e readmodel.AuditEntry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.ID, e.At = int64(len(b.audit)+1), Epoch
	if e.Address != "" {
		e.Actor, e.Address = strings.ReplaceAll(e.Actor, e.Address, "somebody"), "somebody" // whoever runs the test
	}
	b.audit = append(b.audit, e)
	return b.fail
}

// ListAudit implements api.Audit.
func (b *Backend) ListAudit(_ context.Context, q api.AuditQuery) ([]readmodel.AuditEntry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []readmodel.AuditEntry
	for _, e := range slices.Backward(b.audit) {
		if (q.Actor == "" || q.Actor == e.Actor) && (q.Before < 0 || e.ID < q.Before) && len(out) < q.Limit {
			out = append(out, e)
		}
	}
	return out, b.fail
}
