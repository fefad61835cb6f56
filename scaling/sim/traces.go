package sim

import (
	"bytes"
	"embed"
	"fmt"
)

//go:embed traces/*.csv
var traceFiles embed.FS

// TraceSeed is the seed of the traces that come with the package.
const TraceSeed = 1

// LoadTrace returns the trace of a shape that comes with the package.
func LoadTrace(shape string) (*Trace, error) {
	raw, err := traceFiles.ReadFile("traces/" + shape + ".csv")
	if err != nil {
		return nil, fmt.Errorf("there is no built-in trace %q", shape)
	}
	return ReadTrace(shape, bytes.NewReader(raw))
}
