package readmodel

import "time"

// Token is a bearer token of the API. The token itself is shown only once, when it is
// created.
type Token struct {
	ID          string     `json:"id" doc:"The first part of the token: it identifies the token and is not secret."`
	Name        string     `json:"name" doc:"Who uses it. Unique among the valid tokens."`
	Permissions []string   `json:"permissions" doc:"RESOURCE:LEVEL each; a level includes the lower ones."`
	CreatedAt   time.Time  `json:"created_at"`
	CreatedBy   string     `json:"created_by"`
	ExpiresAt   time.Time  `json:"expires_at"`
	RevokedAt   *time.Time `json:"revoked_at,omitempty"`
	RevokedBy   string     `json:"revoked_by,omitempty"`
	State       string     `json:"state" enum:"live,expired,revoked"`
}

// States of a token.
const (
	TokenLive    = "live"
	TokenExpired = "expired"
	TokenRevoked = "revoked"
)

// NewToken is a token at the only time when it is shown.
type NewToken struct {
	Token
	Bearer string `json:"bearer" doc:"The token. It is shown only this once."`
}

// TokenPage lists the tokens, all on one page, newest first.
type TokenPage struct {
	Items []Token `json:"items"`
}

// AuditEntry says who changed what.
type AuditEntry struct {
	ID        int64     `json:"id" doc:"Increases over time."`
	At        time.Time `json:"at"`
	Actor     string    `json:"actor" doc:"Kind and name: local:root, token:deploy, jwt:SUBJECT."`
	Action    string    `json:"action" doc:"The route: method and path."`
	Subject   string    `json:"subject" doc:"What was changed."`
	RequestID string    `json:"request_id,omitempty" doc:"Identifies the request in the host's log."`
	Address   string    `json:"address,omitempty" doc:"Where the request came from."`
	Outcome   string    `json:"outcome" enum:"done,refused,failed"`
	Status    int       `json:"status" doc:"The HTTP status of the answer."`
}

// Outcomes in the audit log.
const (
	AuditDone    = "done"
	AuditRefused = "refused"
	AuditFailed  = "failed"
)

// AuditPage is a page of the audit log, newest first.
type AuditPage struct {
	Items      []AuditEntry `json:"items"`
	NextCursor string       `json:"next_cursor,omitempty"`
}
