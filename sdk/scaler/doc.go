// Package scaler defines what the author of a scaling algorithm needs: the interface to
// implement, the observation of a pool that it receives, and the decision that it returns.
// There is no machinery, and the package imports only the standard library. So an algorithm can
// be tested and simulated like any other Go code, with a million decisions in a moment.
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
// An algorithm only advises. The host keeps the target within the pool's bounds and decides how
// fast and how often a pool may change.
package scaler
