// Package client submits tasks to a Tasker host, watches them and cancels them:
// the way in for programs written in Go. It speaks the host's HTTP API, over its
// unix socket or a URL.
//
//	c, err := client.New(client.Options{Socket: "/run/tasker/tasker.sock"})
//	…
//	t, _, err := c.Submit(ctx, client.Submission{Namespace: "shop", Name: "order", Context: order, IdempotencyKey: "order-17"})
//	…
//	last, err := c.Watch(ctx, t.UUID, nil)
//
// Errors: an *[Error] is what the host answered, with a stable code;
// [ErrUnreachable] says that no host answered at all. Both carry text for people.
//
// A client may be used by many goroutines; [Client.Close] drops its idle
// connections. JSON that belongs to the user stays raw bytes, so that no digit is
// lost. The package needs the standard library only. It knows the API's paths and
// shapes, and nothing of what is behind them.
package client
