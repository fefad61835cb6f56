// Package health defines what the author of a health plugin implements: a [Checker] that finds
// out how something is doing, a [Reporter] that passes on what has happened, or both. There is
// no machinery, and the package imports only the standard library.
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
// Checks only inform: the host shows them, counts them and reports their changes. A plugin's
// check never stops work.
package health
