// Package client is the public client, sdk/client, with the routes that only
// operators and the command line need: repair, queues, plugins, configuration,
// tokens. It returns the read models as they come; JSON that belongs to users
// stays raw bytes, so that no digit is lost.
//
// Errors are those of the public client: an *Error is what the host answered;
// ErrUnreachable says that no host answered at all.
//
// It knows the API's paths and shapes, and nothing of what is behind them.
package client
