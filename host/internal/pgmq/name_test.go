package pgmq_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/host/internal/pgmq"
)

func TestForNamespace(t *testing.T) {
	t.Parallel()
	name, err := pgmq.ForNamespace("linear_workflow")
	require.NoError(t, err)
	require.Equal(t, "linear_workflow_queue", name)
	for _, namespace := range []string{"", "Linear", "a-b", "a b", "1a", "_a", "ä", "a\x00", "a;b", strings.Repeat("a", 42)} {
		_, err := pgmq.ForNamespace(namespace)
		_, ok := errors.AsType[*pgmq.NameError](err)
		require.True(t, ok, "%q: %v", namespace, err)
	}
	_, err = pgmq.ForNamespace(strings.Repeat("a", 40))
	require.NoError(t, err)
}

// Accepted names are identifiers that need no quotes and are not truncated or folded.
func TestCheckNameProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-zA-Z0-9_$;'-]{0,60}`), rapid.StringMatching(`[a-z][a-z0-9_]{0,50}`)).Draw(t, "name")
		if pgmq.CheckName(name) != nil {
			return
		}
		if len(name) == 0 || len(name) > pgmq.MaxNameLength || name != strings.ToLower(name) || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			t.Fatalf("%q passed", name)
		}
	})
}

func FuzzCheckName(f *testing.F) {
	for _, seed := range []string{"a", "a_queue", "A", "a\n", "a'--", strings.Repeat("x", 48)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if pgmq.CheckName(name) == nil && (strings.ContainsAny(name, "\x00\n'\";$- ") || len(name) > pgmq.MaxNameLength) {
			t.Fatalf("%q passed", name)
		}
	})
}
