// Package client is the public client, sdk/client, with the routes that only
// operators and the command line need: repair, queues, plugins, configuration,
// tokens. It returns the read models as received; users' JSON stays raw bytes, so
// that no digit is lost.
//
// Errors are those of the public client: an *Error is the host's answer;
// ErrUnreachable says that no host answered.
//
// It knows the API's paths and shapes, but not what is behind them.
package client
