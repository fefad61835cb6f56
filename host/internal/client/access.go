package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// TokenOrder describes a token to create.
type TokenOrder struct {
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
	ExpiresIn   int64    `json:"expires_in_seconds"`
}

// CreateToken creates a bearer token. Only this answer contains it.
func (c *Client) CreateToken(ctx context.Context, o TokenOrder) (readmodel.NewToken, error) {
	var t readmodel.NewToken
	_, err := c.Call(ctx, request{Method: http.MethodPost, Path: "/v1/tokens", JSON: o}, &t)
	return t, err
}

// Tokens lists all bearer tokens, newest first.
func (c *Client) Tokens(ctx context.Context) ([]readmodel.Token, error) {
	var page readmodel.TokenPage
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: "/v1/tokens"}, &page)
	return page.Items, err
}

// RevokeToken revokes a token by its id or name.
func (c *Client) RevokeToken(ctx context.Context, idOrName string) (readmodel.Token, error) {
	var t readmodel.Token
	_, err := c.Call(ctx, request{Method: http.MethodPost, Path: "/v1/tokens/" + url.PathEscape(idOrName) + "/revoke"}, &t)
	return t, err
}

// Audit returns a page of who changed what, newest first; an empty actor means
// everybody.
func (c *Client) Audit(ctx context.Context, actor, cursor string, limit int) (readmodel.AuditPage, error) {
	q := cursorQuery(cursor)
	set(q, "actor", actor)
	q.Set("limit", strconv.Itoa(limit))
	var page readmodel.AuditPage
	_, err := c.Call(ctx, request{Method: http.MethodGet, Path: "/v1/audit", Query: q}, &page)
	return page, err
}
