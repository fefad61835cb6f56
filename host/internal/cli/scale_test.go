package cli_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestScale(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.golden(t, "scale_traces", b.run(t, "scale", "traces"))
	b.golden(t, "scale_simulate", b.run(t, "scale", "simulate", "-a", `threshold,rate={"drain":"2m","max_factor":4}`, "-a", "predictive", "--trace", "spike"))

	// A written trace can be read.
	dir := t.TempDir()
	trace, plot := filepath.Join(dir, "ramp.csv"), filepath.Join(dir, "ramp.svg")
	require.Zero(t, b.run(t, "scale", "generate-trace", "ramp", "--seed", "3", "-o", trace).code)
	r := b.run(t, "scale", "simulate", "--algorithm", "latency,cost", "--trace", trace, "--plot", plot, "--json", "--max", "20")
	require.Zero(t, r.code, r.err)
	var report struct {
		Results []struct {
			Algorithm string
			MaxSize   int `json:"max_size"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(r.out), &report))
	require.Len(t, report.Results, 2)
	require.Equal(t, "cost", report.Results[1].Algorithm)
	require.Equal(t, 20, report.Results[1].MaxSize)
	picture, err := os.ReadFile(plot)
	require.NoError(t, err)
	require.Contains(t, string(picture), "</svg>")

	b.input = "seconds,arrivals,service_seconds\n0,5,1\n60,5,1\n180,5,1\n"
	b.golden(t, "scale_hole", b.run(t, "scale", "simulate", "-a", "rate", "-t", "-"))
	b.golden(t, "scale_bad_options", b.run(t, "scale", "simulate", "-a", `rate={"drain":"0s"}`, "-t", "spike"))
	b.golden(t, "scale_unknown_algorithm", b.run(t, "scale", "simulate", "-a", "guess", "-t", "spike"))
	b.golden(t, "scale_unknown_trace", b.run(t, "scale", "simulate", "-a", "rate", "-t", "nowhere"))
	b.golden(t, "scale_no_algorithm", b.run(t, "scale", "simulate", "-t", "spike"))
	b.golden(t, "scale_bad_policy", b.run(t, "scale", "simulate", "-a", "rate", "-t", "spike", "--dead-band", "3", "--max", "0"))
	b.golden(t, "scale_unknown_shape", b.run(t, "scale", "generate-trace", "square"))
}

// An algorithm in a plugin's process decides like the same one in this process.
func TestSimulateAPlugin(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "algorithms")
	out, err := exec.Command("go", "build", "-o", path, "../../../plugins/scaling/algorithms").CombinedOutput()
	require.NoError(t, err, string(out))
	b := setup(t)
	r := b.run(t, "scale", "simulate", "-a", `rate={"drain":"30s"},`+path+`#rate={"rate":{"drain":"30s"}}`, "-t", "ramp", "--json")
	require.Zero(t, r.code, r.err)
	var report struct{ Results []any }
	require.NoError(t, json.Unmarshal([]byte(r.out), &report))
	require.Len(t, report.Results, 2)
	require.Equal(t, report.Results[0], report.Results[1])

	r = b.run(t, "scale", "simulate", "-a", path, "-t", "ramp")
	require.Equal(t, 2, r.code)
	require.Contains(t, r.err, "#NAME with one of cost, latency, predictive, rate, target, threshold")
	r = b.run(t, "scale", "simulate", "-a", path+`#rate={"rate":{"max_factor":1}}`, "-t", "ramp")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "/rate/max_factor: 1: want 1.1 to 100")
}
