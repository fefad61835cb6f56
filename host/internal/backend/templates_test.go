package backend_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/api"
)

func version(yaml, v string) string {
	return strings.Replace(yaml, "version: 1.0.0", "version: "+v, 1)
}

func TestApplyTemplate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.apply(t, pairYAML)
	require.Equal(t, []string{"linear", "pair", "1.0.0", "Two steps in a line."}, []string{got.Namespace, got.Name, got.Version, got.Description})
	require.NotNil(t, got.AppliedAt)
	require.Equal(t, []string{"first"}, got.Steps[1].DependsOn)
	require.Equal(t, "1m30s", got.Steps[0].Timeout)
	require.JSONEq(t, `{"type":"object","required":["n"],"properties":{"n":{"type":"integer","minimum":0},"a/b":{"type":"string"}}}`, string(got.InputSchema))

	again, created, err := b.ApplyTemplate(t.Context(), "again.yaml", []byte(pairYAML))
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, got.AppliedAt, again.AppliedAt)

	changed := strings.Replace(pairYAML, "Two steps", "2 steps", 1)
	_, _, err = b.ApplyTemplate(t.Context(), "test.yaml", []byte(changed))
	faultOf(t, err, api.ErrConflict, api.CodeTemplateExists)
	_, err = b.ValidateTemplate(t.Context(), "test.yaml", []byte(changed))
	faultOf(t, err, api.ErrConflict, api.CodeTemplateExists)
}

func TestTemplateProblemsHavePlaces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad := "namespace: linear\nname: Bad Name\nversion: 1.0.0\nsteps:\n  - name: a\n    handler: math.square\n    depends_on: [nobody]\n"
	for _, call := range []func() error{
		func() error { _, _, err := b.ApplyTemplate(t.Context(), "bad.yaml", []byte(bad)); return err },
		func() error { _, err := b.ValidateTemplate(t.Context(), "bad.yaml", []byte(bad)); return err },
	} {
		f := faultOf(t, call(), api.ErrInvalid, api.CodeTemplateInvalid)
		require.Len(t, f.Issues, 2)
		require.Equal(t, "bad.yaml:2:7", f.Issues[0].Location)
		require.True(t, strings.HasPrefix(f.Issues[1].Location, "bad.yaml:7:"), f.Issues[1].Location)
	}
	list, err := b.ListTemplates(t.Context(), api.TemplateQuery{Limit: 10})
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestValidateStoresNothingAndWarns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	src := strings.Replace(pairYAML, "math.hold", "math.unknown", 1) + "environments:\n  test:\n    priority: 2\n"
	got, err := b.ValidateTemplate(t.Context(), "test.yaml", []byte(src))
	require.NoError(t, err)
	require.Nil(t, got.AppliedAt)
	require.Equal(t, []string{"test"}, got.Environments)
	require.Contains(t, strings.Join(got.Warnings, "\n"), "math.unknown")
	_, err = b.Template(t.Context(), api.TemplateID{Namespace: "linear", Name: "pair", Version: "latest"})
	faultOf(t, err, api.ErrNotFound, api.CodeTemplateNotFound)
}

func TestListAndShowTemplates(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, v := range []string{"1.0.0", "1.10.0", "1.9.0"} {
		b.apply(t, version(pairYAML, v))
	}
	first, err := b.ListTemplates(t.Context(), api.TemplateQuery{Limit: 2})
	require.NoError(t, err)
	require.Len(t, first, 2)
	last := first[1]
	rest, err := b.ListTemplates(t.Context(), api.TemplateQuery{
		After: api.TemplateID{Namespace: last.Namespace, Name: last.Name, Version: last.Version}, Limit: 2,
	})
	require.NoError(t, err)
	require.Equal(t, []string{"1.0.0", "1.9.0", "1.10.0"}, []string{first[0].Version, first[1].Version, rest[0].Version})
	require.Len(t, rest, 1)
	latest, err := b.Template(t.Context(), api.TemplateID{Namespace: "linear", Name: "pair", Version: "latest"})
	require.NoError(t, err)
	require.Equal(t, "1.10.0", latest.Version)
}
