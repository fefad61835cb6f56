package auth

import "context"

// Kind is how a principal was recognized.
type Kind string

// The kinds of principals.
const (
	Local     Kind = "local"     // opened the unix socket; the file's mode decides who may
	Anonymous Kind = "anonymous" // over loopback without authentication
	ByToken   Kind = "token"     // presented a token issued by the host
	ByJWT     Kind = "jwt"       // presented a token of the identity provider
	System    Kind = "system"    // the host itself
)

// Principal is who acts. The zero value stands for the host itself when it is named, but
// may do nothing through the API.
type Principal struct {
	Kind        Kind
	Name        string // of the user, the token, or the subject
	Permissions Permissions
}

// String returns kind and name, as shown in audits and logs: token:deploy.
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

// With returns a context for a request made by p.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// From returns who makes the request of ctx; without a request it is the host itself.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

type subjectKey struct{}

// WithSubject returns a context in which [SetSubject] sets what a request is about; read
// returns what was set.
func WithSubject(ctx context.Context) (_ context.Context, read func() string) {
	subject := new(string)
	return context.WithValue(ctx, subjectKey{}, subject), func() string { return *subject }
}

// SetSubject names what the request of ctx changes, for the audit: template
// shop/order@1.0.0. Without it the audit shows the path of the request. Call it from the
// goroutine that answers the request.
func SetSubject(ctx context.Context, subject string) {
	if s, ok := ctx.Value(subjectKey{}).(*string); ok {
		*s = subject
	}
}
