// Package sdk turns handlers, scaling algorithms and health services into a plugin: a program
// that serves them to a host. A plugin's main function needs nothing else.
//
//	func main() {
//		sdk.Serve(sdk.Handlers("billing", "1.0.0", map[string]handler.Handler{
//			"billing.charge": handler.Func(charge),
//		}))
//	}
//
// A plugin runs in its own process. The host starts it with an empty environment, passes it
// options, steps, observations and events, and reads its answers. The plugin never calls back
// and cannot reach the database. One program may serve several kinds. The package keeps the
// process well behaved: output goes to the host's log, a panic fails one step and not the
// process, SIGTERM lets running steps finish, and the process ends when the host does.
//
// [Serve] runs for the life of the process and owns everything in it. [New] makes the same
// services without a process around them, for tests; see sdk/plugintest. Handlers themselves
// are written against sdk/handler, scaling algorithms against sdk/scaler, and checks and
// reporters against sdk/health; they need nothing from this package.
package sdk
