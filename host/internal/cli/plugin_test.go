package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func TestPluginCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.golden(t, "plugin_plan", b.run(t, "plugin", "plan"))
	b.golden(t, "plugin_plan_json", b.run(t, "plugin", "plan", "--json"))
	r := b.run(t, "plugin", "apply")
	require.Equal(t, 1, r.code, "something could not be done")
	b.golden(t, "plugin_apply", r)
	b.golden(t, "plugin_history", b.run(t, "plugin", "history"))
	b.golden(t, "plugin_history_json", b.run(t, "plugin", "history", "math", "--json"))
	b.golden(t, "plugin_history_page", b.run(t, "plugin", "history", "math", "--limit", "1"))
	var page readmodel.PluginHistory
	require.NoError(t, json.Unmarshal([]byte(b.run(t, "plugin", "history", "math", "--limit", "1", "--json").out), &page))
	require.Equal(t, int64(2), page.Items[0].ID)
	rest := b.run(t, "plugin", "history", "math", "--limit", "1", "--cursor", page.NextCursor)
	require.Contains(t, rest.out, "the files have changed")
	require.NotContains(t, rest.out, "rolled back")
	require.NotContains(t, rest.out, "more:")
	b.golden(t, "error_plugin_history_whose", b.run(t, "plugin", "history", "--cursor", page.NextCursor))
	b.golden(t, "error_plugin_history_cursor", b.run(t, "plugin", "history", "math", "--cursor", "x"))
	b.golden(t, "plugin_explain", b.run(t, "plugin", "explain", "math"))
	b.golden(t, "plugin_explain_json", b.run(t, "plugin", "explain", "handler/math", "--json"))
	b.golden(t, "plugin_swap", b.run(t, "plugin", "swap", "math", "--artifact", "/srv/new", "--reason", "to see"))
	for _, verb := range []string{"rollback", "promote", "release"} {
		r := b.run(t, "plugin", verb, "math", "--reason", "to see")
		require.Zero(t, r.code, r.err)
		require.Contains(t, r.out, verb)
		require.Contains(t, r.out, ": to see")
	}
	require.Contains(t, b.run(t, "plugin", "release", "math", "--digest", "22").out, "release 22")
	require.Equal(t, 4, b.run(t, "plugin", "explain", "nobody").code)
	require.Equal(t, 4, b.run(t, "plugin", "history", "nobody").code, "an empty list would look like a plugin without events")
	b.golden(t, "error_plugin_name", b.run(t, "plugin", "explain", "cook/math"))
	b.golden(t, "error_swap_without", b.run(t, "plugin", "swap", "math"))
	b.Fail(api.Conflict(api.CodePluginRefused, "swap handler.math: it is in quarantine: too many errors"))
	r = b.run(t, "plugin", "swap", "math", "--artifact", "/srv/new")
	require.Equal(t, 6, r.code)
	b.golden(t, "error_swap_refused", r)
	b.Fail(&api.Fault{
		Kind: api.ErrInvalid, Code: api.CodePluginsInvalid, Detail: "the plugin files are invalid; what ran before keeps running",
		Issues: []api.Issue{{Location: "/etc/tasker/plugins.toml:4", Detail: "plugin.handler.a.pth: unknown key, did you mean path?"}},
	})
	b.golden(t, "error_plan_bad_files", b.run(t, "plugin", "plan"))
	b.Fail(&api.Fault{
		Kind: api.ErrInvalid, Code: api.CodePluginsInvalid, Detail: "the plugin files are invalid; what ran before keeps running",
		Issues: []api.Issue{{Location: api.PlanTextPlace + ":4", Detail: "plugin.handler.a.pth: unknown key, did you mean path?"}},
	})
	next := filepath.Join(t.TempDir(), "next.toml")
	require.NoError(t, os.WriteFile(next, []byte("pth"), 0o600))
	require.Contains(t, b.run(t, "plugin", "plan", "--file", next).err, ": "+next+":4: plugin.handler.a.pth", "the file that was named")
}
