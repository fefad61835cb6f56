package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// taskerReport is the part of the JSON of `tasker bench` that is used.
type taskerReport struct {
	StepsPerSecond  float64 `json:"steps_per_second"`
	WALBytesPerStep float64 `json:"wal_bytes_per_step"`
	LatencyMS       struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"latency_ms"`
	CPU struct {
		Host   float64 `json:"host"`
		Plugin float64 `json:"plugin"`
		Server float64 `json:"server"`
	} `json:"cpu_us_per_step"`
	Setting setting `json:"setting"`
}

// setting describes the server and its machine.
type setting struct {
	CPUs        int               `json:"cpus"`
	CPU         string            `json:"cpu"`
	MemoryBytes int64             `json:"memory_bytes"`
	System      string            `json:"system"`
	Go          string            `json:"go"`
	Database    map[string]string `json:"database"`
}

// taskerTurn is a turn of the host, which runs in a process of its own, as does its
// plugin with the handlers.
type taskerTurn struct {
	inProcess bool
}

// workloads of `tasker bench`, by shape.
var workloads = map[string]string{chain.name: "linear", single.name: "single"}

func (tt taskerTurn) measure(ctx context.Context, s *server, url string, sh shape, p plan) (result, error) {
	args := []string{"bench", workloads[sh.name], "--json", "--repeat", "1", "--samples", strconv.Itoa(p.samples), "--tasks", strconv.Itoa(p.steps / sh.steps)}
	if tt.inProcess {
		args = append(args, "--in-process")
	}
	cmd := exec.CommandContext(ctx, p.tasker, args...)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+url, "TASKER__SYSTEM__STATE_DIR="+filepath.Join(p.state, "tasker"))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTimeout + 10*time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return result{}, fmt.Errorf("%s %v: %w: %s", p.tasker, args, err, bytes.TrimSpace(said.Bytes()))
	}
	var r taskerReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return result{}, fmt.Errorf("%s %v: read its report: %w", p.tasker, args, err)
	}
	s.setting = r.Setting
	return result{
		stepsPerSecond: r.StepsPerSecond, walPerStep: r.WALBytesPerStep, cpuPerStep: r.CPU.Host + r.CPU.Plugin + r.CPU.Server,
		p50: r.LatencyMS.P50, p99: r.LatencyMS.P99, samples: p.samples,
	}, nil
}
