// Command bench is the handler plugin of the benchmark command: handlers that cost
// nothing, so that the host is what is measured. The host starts and stops it; see
// plugins/examples/bench.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"

	"github.com/tasker-systems/tasker-host/plugins/examples/bench"
	"github.com/tasker-systems/tasker-host/sdk"
)

// profileVariable names the directory that profiles go to; if unset, there are
// none.
const profileVariable = "TASKER_BENCH_PROFILE"

func main() {
	if dir := os.Getenv(profileVariable); dir != "" {
		go func() { fmt.Fprintln(os.Stderr, "no more profiles:", profile(dir)) }()
	}
	sdk.Serve(plugin())
}

func plugin() sdk.Part {
	return sdk.Handlers("bench", "1.0.0", bench.Handlers())
}

// profile writes one CPU profile after another, each of a second, until it fails,
// because a plugin does not learn early enough that it will end. pprof merges them.
func profile(dir string) error {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for n := 0; ; n++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("plugin.cpu.%04d.pprof", n)))
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		<-second.C
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			return err
		}
	}
}
