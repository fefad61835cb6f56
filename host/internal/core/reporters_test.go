package core

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/health"
	sdkhealth "github.com/tasker-systems/tasker-host/sdk/health"
)

// unrulyReporters builds plugins of kind health that misbehave in these ways while a file
// exists.
func unrulyReporters(t *testing.T, file string, ways ...string) (specs []config.PluginSpec) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "unruly")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/tasker-systems/tasker-host/plugins/test/unruly").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, way := range ways {
		path := filepath.Join(dir, way)
		script := fmt.Sprintf("#!/bin/sh\nexec '%s' reporter %s '%s'\n", binary, way, file)
		require.NoError(t, os.WriteFile(path, []byte(script), 0o700))
		specs = append(specs, config.PluginSpec{
			Kind: "health", Name: way, Options: json.RawMessage("{}"),
			PluginSettings: config.PluginSettings{Path: path, MaxInFlight: 8, StartTimeout: time.Minute},
		})
	}
	return specs
}

// reported returns what the checks of a plugin last found.
func (b *bed) reported(way string) (status health.Status, message string) {
	for _, i := range b.health.Report().Items {
		if strings.HasPrefix(i.Name, "reported/"+way) {
			return i.Status, i.Message
		}
	}
	return "missing", ""
}

func (b *bed) reports(t *testing.T, result string) (n float64) {
	t.Helper()
	families, err := b.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "tasker_health_reports_total" && m.GetLabel()[0].GetValue() == result {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// patiently waits for the effects of plugins that start, crash and run into deadlines.
func (b *bed) patiently(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 3*time.Minute, 20*time.Millisecond, what)
}

// looksAnew waits for the end of a look that began after the call.
func (b *bed) looksAnew(t *testing.T) {
	t.Helper()
	for range 2 { // the first may have begun earlier
		looked := b.health.Report().At
		b.patiently(t, "further looks", func() bool { return b.health.Report().At.After(looked) })
	}
}

// A reporter that blocks, floods or crashes is unknown and never healthy; the host
// continues, other reporters get their events, and what the bad ones do not take is
// dropped and counted, not accumulated.
func TestBadReporters(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "misbehave")
	bad := []string{"block", "flood", "crash"}
	b := startWith(t, unrulyReporters(t, file, "fine", bad[0], bad[1], bad[2]), "")
	all := func(want health.Status) func() bool {
		return func() bool {
			for _, way := range bad {
				if status, _ := b.reported(way); status != want {
					return false
				}
			}
			return true
		}
	}
	b.patiently(t, "good behaviour", all(health.Healthy))
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	b.looksAnew(t) // on a busy machine, good ones may be unknown for one look too
	b.patiently(t, "no answers", all(health.Unknown))

	event := sdkhealth.Event{Kind: sdkhealth.KindCheck, Severity: sdkhealth.Info, Subject: "a test", From: "healthy", To: "degraded", Time: time.Now(), State: "normal"}
	const chunk, chunks = 100, 14
	for n := range chunks {
		before := b.reports(t, "taken")
		for range chunk {
			b.reporters.Tell(event)
		}
		b.patiently(t, fmt.Sprint("what the good one takes, chunk ", n), func() bool { return b.reports(t, "taken") >= before+chunk })
		for _, way := range bad {
			status, message := b.reported(way) // one that is restarting has none
			require.NotEqual(t, health.Healthy, status, "%s: %s", way, message)
		}
	}
	const kept = 1000
	require.GreaterOrEqual(t, b.reports(t, "dropped"), float64(len(bad)*(chunk*chunks-kept)))
	b.looksAnew(t)
	for _, i := range b.health.Report().Items {
		require.LessOrEqual(t, len(i.Message), sdkhealth.MaxMessageBytes, i.Name)
	}
	b.patiently(t, "what is well", func() bool { // a busy machine may be late for one look
		well := 0
		for _, i := range b.health.Report().Items {
			if (i.Name == "loops" || i.Name == "reported/fine/pulse") && i.Status == health.Healthy {
				well++
			}
		}
		return well == 2
	})
	require.LessOrEqual(t, len(b.health.Report().Items), 100, "flooding results are not checks")
	// On a busy machine, it may also fail to answer in time now and then.
	b.patiently(t, "what is wrong with the flood", func() bool {
		_, message := b.reported("flood")
		return message == "the answer has 5001 results: want at most 100"
	})
	status, _ := b.get(t, "/health/live")
	require.Equal(t, 200, status)
	require.Less(t, len(b.log.String()), 4<<20, "the log is not flooded")

	require.NoError(t, os.Remove(file))
	b.patiently(t, "an answer again", func() bool { status, _ := b.reported("flood"); return status == health.Healthy })
}
