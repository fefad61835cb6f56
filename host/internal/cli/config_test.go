package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
)

// configured runs a command on an operator's directory, with paths that do not depend
// on the machine.
func (b *bundle) configured(t *testing.T, files map[string]string, args ...string) result {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		at := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o750))
		require.NoError(t, os.WriteFile(at, []byte(content), 0o600))
	}
	r := b.run(t, append(args, "--config", dir, "--set", "system.state_dir=/state")...)
	r.out, r.err = strings.ReplaceAll(r.out, dir, "DIR"), strings.ReplaceAll(r.err, dir, "DIR")
	return r
}

var operator = map[string]string{
	"host.toml":                      "[engine]\nmax_steps = 50\n[orchestration]\ndrain_timeout = \"10s\"\n",
	"plugins.toml":                   "[plugin.handler.greeter]\npath = \"greeter\"\n",
	"environments/staging/host.toml": "[system]\nlog_level = \"debug\"\n",
}

func TestConfigShow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.golden(t, "config_show", b.configured(t, operator, "config", "show", "--env", "staging"))
	b.golden(t, "config_show_production", b.configured(t, operator, "config", "show", "--env", "production"))
	b.golden(t, "config_show_origin", b.configured(t, operator, "config", "show", "--origin", "engine", "system.log_level", "--env", "staging"))
	b.golden(t, "config_show_json", b.configured(t, operator, "config", "show", "database.url", "engine.max_steps", "--json", "--env", "test"))
	b.golden(t, "config_show_unknown", b.configured(t, operator, "config", "show", "engin"))
	b.golden(t, "config_show_nowhere", b.configured(t, operator, "config", "show", "zoo"))
}

func TestConfigDiff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.golden(t, "config_diff", b.configured(t, operator, "config", "diff", "--env", "test,production,staging"))
	b.golden(t, "config_diff_json", b.configured(t, operator, "config", "diff", "--env", "development,staging", "--json"))
	b.golden(t, "config_diff_same", b.configured(t, operator, "config", "diff", "--env", "test,test"))
	b.golden(t, "config_diff_one", b.configured(t, operator, "config", "diff", "--env", "test"))
	b.golden(t, "config_diff_unknown", b.configured(t, operator, "config", "diff", "--env", "test,prod"))
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.golden(t, "config_validate", b.configured(t, operator, "config", "validate", "--all"))
	b.golden(t, "config_validate_json", b.configured(t, operator, "config", "validate", "--all", "--json"))
	b.golden(t, "config_validate_problems", b.configured(t, map[string]string{
		"a.toml":                      "[database]\nmax_conections = 5\n[orchestration]\nlease = \"12s\"\n",
		"environments/staging/b.toml": "[system]\nlog_level = \"loud\"\n",
	}, "config", "validate", "--env", "staging"))
	b.golden(t, "config_validate_plugins", b.configured(t, map[string]string{
		"plugins.toml": "[plugin.handler.greeter]\npth = \"greeter\"\n[plugin.handlr.x]\npath = \"x\"\n",
	}, "config", "validate"))
}

func TestConfigOfARunningHost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.golden(t, "config_show_running", b.run(t, "config", "show", "--running", "--origin"))
	b.golden(t, "config_show_running_json", b.run(t, "config", "show", "--running", "--json", "engine"))
	b.golden(t, "config_reload", b.run(t, "config", "reload"))
	b.Fail(api.Conflict(api.CodeConfigurationRefused, "the previous configuration stays in force: a.toml:3: engine.max_in_flight: 0 is out of range"))
	b.golden(t, "config_reload_refused", b.run(t, "config", "reload"))
}
