package core

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/tasker-systems/tasker-host/host/internal/bench"
)

// apart starts a host the way a user does, with its API, on the database being measured.
// If handlers run inside the hosts, it uses this process instead, which also generates
// the load.
func (b *benchBed) apart(ctx context.Context) (bench.Apart, error) {
	if b.options.InProcess {
		return bench.Apart{PID: os.Getpid(), Stop: func() error { return nil }}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return bench.Apart{}, fmt.Errorf("start a host: %w", err)
	}
	dir := filepath.Join(b.options.Config.System.StateDir, "apart")
	if err := makeStateDir(dir); err != nil {
		return bench.Apart{}, err
	}
	plugins := filepath.Join(dir, "plugins.toml")
	text := fmt.Sprintf("[lock]\nrequired = false\n\n[plugin.handler.bench]\npath = %q\nrequired = true\nmax_in_flight = %d\n", b.options.Plugin, benchWindow)
	if err := os.WriteFile(plugins, []byte(text), 0o600); err != nil {
		return bench.Apart{}, fmt.Errorf("start a host: %w", err)
	}
	overrides := maps.Clone(b.options.Source.Overrides)
	if overrides == nil {
		overrides = map[string]string{}
	}
	maps.Copy(overrides, map[string]string{
		"system.state_dir": dir, "system.socket": filepath.Join(dir, "tasker.sock"), "system.plugins": plugins,
		"system.http_listen": "", "system.log_level": "warn",
	})
	delete(overrides, "database.url") // passed in the environment: anyone can read a command line
	args := []string{"up"}
	if env := b.options.Config.Environment; env != "" {
		args = append(args, "--env", env)
	}
	if b.options.Source.Dir != "" {
		args = append(args, "--config", b.options.Source.Dir)
	}
	for _, key := range slices.Sorted(maps.Keys(overrides)) {
		args = append(args, "--set", key+"="+overrides[key])
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, args...) // this program
	cmd.Env = append(os.Environ(), "DATABASE_URL="+b.database.url)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		return bench.Apart{}, fmt.Errorf("start a host: %w", err)
	}
	gone := make(chan struct{})
	var ended error
	go func() {
		defer close(gone)
		ended = cmd.Wait()
	}()
	stop := func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // a process that has already ended needs no signal
		<-gone
		return ended
	}
	return bench.Apart{PID: cmd.Process.Pid, Gone: gone, Stop: stop}, nil
}
