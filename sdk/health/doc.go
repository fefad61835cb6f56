// Package health is what the author of a health plugin implements: a [Checker]
// that finds out how something is, a [Reporter] that tells somebody what has
// happened, or both. It has no machinery and imports nothing but the standard
// library.
//
//	func main() {
//		sdk.Serve(sdk.Health("spool", "1.0.0", map[string]health.Service{
//			"spool": {Checker: health.CheckFunc(spool)},
//		}))
//	}
//
//	func spool(ctx context.Context) ([]health.Check, error) {
//		files, err := os.ReadDir("/var/spool/orders")
//		if err != nil {
//			return nil, err
//		}
//		c := health.Check{Name: "spool", Status: health.Healthy, Data: map[string]any{"files": len(files)}}
//		if len(files) > 1000 {
//			c.Status, c.Message = health.Degraded, "more than 1000 orders wait"
//		}
//		return []health.Check{c}, nil
//	}
//
// A check informs: the host shows it, counts it and reports its changes. No
// check of a plugin stops work.
package health
