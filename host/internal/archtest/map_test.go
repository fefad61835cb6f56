package archtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The table of packages in docs/architecture.md shows every package of the trusted core.
func TestTheMapShowsEveryRoom(t *testing.T) {
	t.Parallel()
	root, err := moduleRoot()
	require.NoError(t, err)
	page, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	require.NoError(t, err)
	shown := map[string]bool{}
	for line := range strings.Lines(string(page)) {
		first, _, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		for _, name := range strings.Split(first, "`") {
			shown[strings.TrimPrefix(name, "host/internal/")] = true
		}
	}
	for _, p := range packages(t) {
		name, found := strings.CutPrefix(p.room(), "host/internal/")
		if name, _, _ = strings.Cut(name, "/"); found && !shown[name] {
			t.Errorf("docs/architecture.md: no row of the packages shows host/internal/%s", name)
		}
	}
}
