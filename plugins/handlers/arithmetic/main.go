// Command arithmetic is the handler plugin of the example workflows that square
// numbers. The host starts and stops it; see plugins/examples/arithmetic.
package main

import (
	"github.com/tasker-systems/tasker-host/plugins/examples/arithmetic"
	"github.com/tasker-systems/tasker-host/sdk"
)

// version is set by the linker for builds that differ in nothing else: -ldflags
// "-X main.version=1.1.0".
var version = "1.0.0"

func main() { sdk.Serve(plugin()) }

func plugin() sdk.Part {
	return sdk.Handlers("arithmetic", version, arithmetic.Handlers())
}
