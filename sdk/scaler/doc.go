// Package scaler is what the author of a scaling algorithm implements: one
// interface, what it is shown of a pool, and what it answers. It has no
// machinery and imports nothing but the standard library: an algorithm is
// tested, and simulated, like any other Go code, a million decisions in a
// moment.
//
//	func main() {
//		sdk.Serve(sdk.Scaling("halves", "1.0.0", map[string]scaler.New{
//			"halves": func() scaler.Scaler { return scaler.Func(halves) },
//		}))
//	}
//
//	func halves(_ context.Context, o scaler.Observation) (scaler.Decision, error) {
//		last, ok := o.Last()
//		if !ok {
//			return scaler.Hold(o, "nothing was measured"), nil
//		}
//		n := (int(last.QueueDepth) + 1) / 2
//		return scaler.Decision{Target: n, Confidence: 1, Reason: "one for two that wait"}, nil
//	}
//
// An algorithm advises. The host keeps the target between the pool's bounds,
// and decides how fast and how often a pool may change.
package scaler
