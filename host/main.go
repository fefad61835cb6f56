// Command tasker is the host, and the client that operates it.
package main

import (
	"os"

	"github.com/tasker-systems/tasker-host/host/internal/cli"
	"github.com/tasker-systems/tasker-host/host/internal/core"
)

func main() { os.Exit(cli.Main(core.Runtime())) }
