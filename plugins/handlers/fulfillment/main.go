// Command fulfillment is the handler plugin of the example workflow that
// fulfils an order. The host starts and stops it; see
// plugins/examples/fulfillment.
package main

import (
	"time"

	"github.com/tasker-systems/tasker-host/plugins/examples/fulfillment"
	"github.com/tasker-systems/tasker-host/sdk"
)

func main() { sdk.Serve(plugin()) }

func plugin() sdk.Part {
	return sdk.Handlers("fulfillment", "1.0.0", fulfillment.Handlers(time.Now))
}
