// Package client lets Go programs submit tasks to a Tasker host, watch them and cancel them. It
// speaks the host's HTTP API, over its unix socket or a URL.
//
//	c, err := client.New(client.Options{Socket: "/run/tasker/tasker.sock"})
//	…
//	t, _, err := c.Submit(ctx, client.Submission{Namespace: "shop", Name: "order", Context: order, IdempotencyKey: "order-17"})
//	…
//	last, err := c.Watch(ctx, t.UUID, nil)
//
// An *[Error] is what the host answered, with a stable code; [ErrUnreachable] means that no
// host answered at all. Both carry text for people.
//
// Many goroutines may use a client at once; [Client.Close] closes its idle connections. JSON
// that belongs to the user stays raw bytes, so that no digit is lost. The package needs only
// the standard library. It knows the API's paths and shapes, but nothing about what is behind
// them.
package client
