// Command algorithms is a scaling plugin that serves the algorithms of this
// module: threshold, target, rate, latency, cost and predictive. Each has a
// table of its own in the plugin's options.
package main

import "github.com/tasker-systems/tasker-host/sdk"

func main() { sdk.Serve(part()) }
