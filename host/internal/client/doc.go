// Package client speaks to a host's HTTP API, over its unix socket or a URL.
// It returns the read models as they come; JSON that belongs to users stays raw
// bytes, so that no digit is lost.
//
// Errors: an *Error is what the host answered; ErrUnreachable says that no host
// answered at all. Both carry text for people.
//
// It knows the API's paths and shapes, and nothing of what is behind them.
// Watching reconnects by itself; nothing else is repeated.
package client
