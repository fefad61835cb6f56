package auth

import "context"

// Kind says how a principal was recognized.
type Kind string

// The kinds of principals.
const (
	Local     Kind = "local"     // opened the unix socket; its file's mode decides who may
	Anonymous Kind = "anonymous" // over loopback without authentication
	ByToken   Kind = "token"     // showed a token that the host made
	ByJWT     Kind = "jwt"       // showed a token of the identity provider
	System    Kind = "system"    // the host itself
)

// Principal is who acts. The zero value is the host itself, as far as names go,
// and may do nothing through the API.
type Principal struct {
	Kind        Kind
	Name        string // of the user, the token, or the subject
	Permissions Permissions
}

// String returns kind and name, as audit and logs show them: token:deploy.
func (p Principal) String() string {
	switch {
	case p.Kind == "":
		return string(System)
	case p.Name == "":
		return string(p.Kind)
	default:
		return string(p.Kind) + ":" + p.Name
	}
}

type principalKey struct{}

// With returns a context of a request that p makes.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// From returns who makes the request of ctx; a context of no request is the
// host's own.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

type subjectKey struct{}

// WithSubject returns a context in which [SetSubject] says what a request is
// about; read returns what it said.
func WithSubject(ctx context.Context) (_ context.Context, read func() string) {
	subject := new(string)
	return context.WithValue(ctx, subjectKey{}, subject), func() string { return *subject }
}

// SetSubject names what the request of ctx changes, for the audit: template
// shop/order@1.0.0. Without it the audit shows the path of the request. To be
// called by the goroutine that answers the request.
func SetSubject(ctx context.Context, subject string) {
	if s, ok := ctx.Value(subjectKey{}).(*string); ok {
		*s = subject
	}
}
