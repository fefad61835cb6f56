package spelling_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/spelling"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	words := []string{"steps", "name", "namespace", "max_connections", "min_connections"}
	for word, want := range map[string]string{
		"stepz":                        "steps",
		"nmae":                         "name",
		"NAMESPACE":                    "namespace",
		"max_conections":               "max_connections",
		"in_connections":               "min_connections",
		"name":                         "name",
		"":                             "",
		"elephant":                     "",
		strings.Repeat("steps", 100):   "",
		"a_name_that_has_little_of_it": "",
	} {
		require.Equal(t, want, spelling.Nearest(word, words), word)
	}
	require.Empty(t, spelling.Nearest("steps", nil))
	long := strings.Repeat("x", 129)
	require.Empty(t, spelling.Nearest(long, []string{long}), "a word that long is not a typo")
}
