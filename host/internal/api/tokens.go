package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// maxTokenLife bounds the lifetime of a token: nobody remembers older ones.
const maxTokenLife = 366 * 24 * time.Hour

type tokenRequest struct {
	Name        string   `json:"name" pattern:"^[a-z][a-z0-9_-]{0,62}$" patternDescription:"1 to 63 lower-case letters, digits, - and _, a letter first"`
	Permissions []string `json:"permissions" minItems:"1" maxItems:"64" doc:"RESOURCE:LEVEL each, such as task:operate; *:read for everything."`
	ExpiresIn   whole    `json:"expires_in_seconds" minimum:"60" maximum:"31622400" doc:"How long the token works; at most 366 days."`
}

type createTokenInput struct{ Body tokenRequest }

type createTokenOutput struct{ Body readmodel.NewToken }

type tokensOutput struct{ Body readmodel.TokenPage }

type tokenPath struct {
	TokenID string `path:"token_id" maxLength:"63" doc:"The token's id, or its name."`
}

type tokenOutput struct{ Body readmodel.Token }

type auditInput struct {
	Actor  string `query:"actor" maxLength:"300" doc:"Only what this principal did."`
	Cursor string `query:"cursor" maxLength:"200" doc:"next_cursor of the previous page."`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

type auditOutput struct{ Body readmodel.AuditPage }

func (r *routes) accessRoutes() {
	register(r, huma.Operation{
		OperationID: "create-token", Method: http.MethodPost, Path: "/v1/tokens", Tags: []string{"access"},
		Summary: "Create a bearer token", Description: "The answer is the only place where the token is shown.",
		DefaultStatus: http.StatusCreated,
	}, r.createToken)
	register(r, huma.Operation{
		OperationID: "list-tokens", Method: http.MethodGet, Path: "/v1/tokens", Tags: []string{"access"},
		Summary: "List bearer tokens, including expired and revoked ones",
	}, r.listTokens)
	register(r, huma.Operation{
		OperationID: "revoke-token", Method: http.MethodPost, Path: "/v1/tokens/{token_id}/revoke", Tags: []string{"access"},
		Summary:     "Revoke a bearer token",
		Description: "This host refuses it at once, the others within auth.token_refresh.",
	}, r.revokeToken)
	register(r, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/v1/audit", Tags: []string{"access"},
		Summary: "List who changed what, newest first",
	}, r.listAudit)
}

func (r *routes) createToken(ctx context.Context, in *createTokenInput) (*createTokenOutput, error) {
	b := &in.Body
	permissions, err := auth.ParsePermissions(b.Permissions)
	if err != nil {
		return nil, Invalid(CodeValidationFailed, "the request has values that are not allowed",
			Issue{Pointer: "/permissions", Detail: err.Error()})
	}
	who := auth.From(ctx)
	if !permissions.Within(who.Permissions) {
		return nil, newProblem(http.StatusForbidden, CodePermissionDenied, "a token may not have more permissions than its creator")
	}
	auth.SetSubject(ctx, "token "+b.Name)
	token, err := r.backend.Tokens.CreateToken(ctx, TokenOrder{
		Name: b.Name, Permissions: permissions.Strings(), Life: min(time.Duration(b.ExpiresIn)*time.Second, maxTokenLife),
		CreatedBy: who.String(),
	})
	if err != nil {
		return nil, err
	}
	return &createTokenOutput{Body: token}, nil
}

func (r *routes) listTokens(ctx context.Context, _ *struct{}) (*tokensOutput, error) {
	tokens, err := r.backend.Tokens.ListTokens(ctx)
	if err != nil {
		return nil, err
	}
	if tokens == nil {
		tokens = []readmodel.Token{}
	}
	return &tokensOutput{Body: readmodel.TokenPage{Items: tokens}}, nil
}

func (r *routes) revokeToken(ctx context.Context, in *tokenPath) (*tokenOutput, error) {
	token, err := r.backend.Tokens.RevokeToken(ctx, in.TokenID, auth.From(ctx).String())
	if err != nil {
		return nil, err
	}
	auth.SetSubject(ctx, "token "+token.Name)
	return &tokenOutput{Body: token}, nil
}

func (r *routes) listAudit(ctx context.Context, in *auditInput) (*auditOutput, error) {
	before, err := after("a", in.Cursor)
	if err != nil {
		return nil, err
	}
	entries, err := r.backend.Audit.ListAudit(ctx, AuditQuery{Actor: in.Actor, Before: before, Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	items, more := trim(entries, in.Limit)
	out := &auditOutput{Body: readmodel.AuditPage{Items: items}}
	if more {
		out.Body.NextCursor = encodeCursor("a", strconv.FormatInt(items[len(items)-1].ID, 10))
	}
	return out, nil
}
