// Package sdk is the whole main of a plugin: it takes handlers, scaling
// algorithms and health services, and serves them to a host.
//
//	func main() {
//		sdk.Serve(sdk.Handlers("billing", "1.0.0", map[string]handler.Handler{
//			"billing.charge": handler.Func(charge),
//		}))
//	}
//
// A plugin is a process of its own. The host starts it with an empty
// environment, hands it options, steps, observations and events, and reads its
// answers; the plugin never calls back and has no way to the database. One
// program may serve several kinds. The package keeps the
// process well behaved: output goes to the host's log, a panic fails one step
// and not the process, SIGTERM finishes the steps in hand, and the process ends
// when the host does.
//
// [Serve] runs for the life of the process and owns everything in it. [New]
// makes the same services without a process around them, for tests; see
// sdk/plugintest. Handlers themselves are written against sdk/handler, scaling
// algorithms against sdk/scaler, checks and reporters against sdk/health; they
// need nothing from here.
package sdk
