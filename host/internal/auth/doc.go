// Package auth says who asks and what they may do: principals and their
// permissions, the bearer tokens that the host makes itself, the JSON Web
// Tokens of an identity provider, and how much one client may ask for.
//
// It knows nothing of HTTP routes (package api has the table of routes and
// permissions) and nothing of SQL: tokens come through [TokenSource]. A request
// carries its principal in its context; [From] reads it wherever code must know
// who acts.
//
// Errors: a bearer that is no good gives an error that wraps [ErrRefused], whose
// text may be shown; if it cannot be checked now the error is another. Nothing
// is accepted in doubt.
package auth
