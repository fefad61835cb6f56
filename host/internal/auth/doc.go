// Package auth determines who makes a request and what they may do: principals and their
// permissions, the bearer tokens that the host issues itself, the JSON Web Tokens of an
// identity provider, and rate limits for clients.
//
// It knows nothing about HTTP routes (package api has the table of routes and
// permissions) or SQL: tokens come through [TokenSource]. A request carries its principal
// in its context; [From] reads it wherever code must know who acts.
//
// Errors: an invalid bearer causes an error that wraps [ErrRefused], whose text may be
// shown; if it cannot be checked now, the error is a different one. In case of doubt
// nothing is accepted.
package auth
