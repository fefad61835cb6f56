// Command bench is the handler plugin of the benchmark command: handlers that
// cost nothing, so that what is measured is the host. The host starts and stops
// it; see plugins/examples/bench.
package main

import (
	"github.com/tasker-systems/tasker-host/plugins/examples/bench"
	"github.com/tasker-systems/tasker-host/sdk"
)

func main() { sdk.Serve(plugin()) }

func plugin() sdk.Part {
	return sdk.Handlers("bench", "1.0.0", bench.Handlers())
}
