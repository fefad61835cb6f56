// Package api serves the host's HTTP interface: REST with an OpenAPI 3.1 description
// generated from the code, problem+json errors (RFC 9457) and server-sent events, over
// a Unix socket and, if configured, over TCP on the loopback.
//
// It knows HTTP and the read models, but not SQL, plugins or pools: what it serves comes
// through the small interfaces in backend.go, which the composition root implements.
// The composition root also starts and stops the Server.
//
// All input is untrusted. Bodies are bounded while they are read, JSON passes the
// payload gate before anything decodes it, unknown fields and trailing data are refused,
// every wait has a deadline, and a panic in a handler costs only one request. A task's
// context is passed on as the bytes received.
//
// Errors: the backend returns a *Fault, or an error that wraps ErrNotFound, ErrConflict
// or ErrUnavailable. Anything else is answered as an internal error with a request id
// and logged, and its text is not shown to the client.
package api
