package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

func TestTokensAndAuditAreKept(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	s, ctx := New(pool), t.Context()
	order := NewToken{ID: "a", Name: "deploy", Hash: make([]byte, 32), Permissions: []string{"task:read"}, CreatedBy: "local:me", Life: time.Hour}
	made, created, err := s.CreateToken(ctx, order)
	require.NoError(t, err)
	require.True(t, created)
	require.Equal(t, readmodel.TokenLive, made.State)
	order.ID = "b"
	_, created, err = s.CreateToken(ctx, order)
	require.NoError(t, err)
	require.False(t, created, "the name is in use")
	live, err := s.LiveTokens(ctx)
	require.NoError(t, err)
	require.Len(t, live, 1)

	revoked, err := s.RevokeToken(ctx, "deploy", "local:you")
	require.NoError(t, err)
	require.Equal(t, readmodel.TokenRevoked, revoked.State)
	again, err := s.RevokeToken(ctx, "a", "local:other")
	require.NoError(t, err)
	require.Equal(t, "local:you", again.RevokedBy)
	_, err = s.RevokeToken(ctx, "nobody", "x")
	require.ErrorIs(t, err, ErrNotFound)
	live, err = s.LiveTokens(ctx)
	require.NoError(t, err)
	require.Empty(t, live)
	_, created, err = s.CreateToken(ctx, order)
	require.NoError(t, err)
	require.True(t, created, "the name is free again")

	for _, actor := range []string{"local:me", "token:x", "local:me"} {
		require.NoError(t, s.RecordAudit(ctx, readmodel.AuditEntry{Actor: actor, Action: "POST /x", Subject: "y", Outcome: readmodel.AuditDone, Status: 200}))
	}
	mine, err := s.ListAudit(ctx, "local:me", -1, 10)
	require.NoError(t, err)
	require.Len(t, mine, 2)
	older, err := s.ListAudit(ctx, "", mine[0].ID, 10)
	require.NoError(t, err)
	require.Len(t, older, 2)
	for _, tamper := range []string{"delete from tasker_audit", "update tasker_audit set actor = 'nobody'", "truncate tasker_audit"} {
		_, err := pool.Exec(ctx, tamper)
		require.ErrorContains(t, err, "not changed, and not removed before they are 30 days old", tamper)
	}
}
