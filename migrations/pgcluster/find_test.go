package pgcluster_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
)

// fakeBinaries makes a directory that looks like a PostgreSQL of the given version.
func fakeBinaries(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	script(t, filepath.Join(dir, "postgres"), `echo "postgres (PostgreSQL) `+version+`"`)
	script(t, filepath.Join(dir, "initdb"), "exit 1")
	return dir
}

func script(t *testing.T, path, body string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755))
}

func TestFindBinaries(t *testing.T) {
	t.Setenv("PG_BINDIR", "")
	found, err := pgcluster.FindBinaries("", 0)
	require.NoError(t, err)
	require.GreaterOrEqual(t, found.Major, pgcluster.MinMajor)
	same, err := pgcluster.FindBinaries("", found.Major)
	require.NoError(t, err)
	require.Equal(t, found.Major, same.Major)

	given := fakeBinaries(t, "17.2")
	b, err := pgcluster.FindBinaries(given, 0)
	require.NoError(t, err)
	require.Equal(t, pgcluster.Binaries{Dir: given, Major: 17}, b)
	_, err = pgcluster.FindBinaries(given, 15)
	require.ErrorContains(t, err, "the data belongs to PostgreSQL 15, but only 17 in "+given)

	t.Setenv("PG_BINDIR", given)
	b, err = pgcluster.FindBinaries("", 0)
	require.NoError(t, err)
	require.Equal(t, 17, b.Major)
	t.Setenv("PG_BINDIR", t.TempDir())
	_, err = pgcluster.FindBinaries("", 0)
	require.ErrorContains(t, err, "$PG_BINDIR", "a setting is not ignored silently")

	_, err = pgcluster.FindBinaries(fakeBinaries(t, "14.9"), 0)
	require.ErrorContains(t, err, "version 14: want 15 or later")
}

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	script(t, filepath.Join(dir, "sudo"), `[ "$1" = -n ] && shift; exec "$@"`)
	script(t, filepath.Join(dir, "apt-get"), `echo "$@" >>`+calls+`; [ "$3" = install ] || exit 100`)
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	require.NoError(t, pgcluster.Install(t.Context()), "a mirror that cannot be refreshed does not matter")
	text, err := os.ReadFile(calls)
	require.NoError(t, err)
	require.Equal(t, "-q -y update\n-q -y install --no-install-recommends postgresql\n", string(text))

	script(t, filepath.Join(dir, "apt-get"), `echo "E: Unable to locate package"; exit 100`)
	err = pgcluster.Install(t.Context())
	require.ErrorContains(t, err, "E: Unable to locate package")
	require.ErrorContains(t, err, "by hand: apt-get update && apt-get install")

	script(t, filepath.Join(dir, "sudo"), "exit 1")
	if os.Geteuid() != 0 {
		require.ErrorContains(t, pgcluster.Install(t.Context()), "have an administrator run")
	}
	t.Setenv("PATH", t.TempDir())
	require.ErrorContains(t, pgcluster.Install(t.Context()), "no apt-get")
}

// A directory below one that the server's account cannot enter is refused with a
// suggestion; if we are that account, it is accepted.
func TestClosedParent(t *testing.T) {
	t.Parallel()
	parent := filepath.Dir(stateDir(t))
	require.NoError(t, os.Chmod(parent, 0o700))
	dir := filepath.Join(parent, "pg")
	if os.Geteuid() != 0 {
		start(t, pgcluster.Config{Dir: dir, Ephemeral: true})
		return
	}
	_, err := pgcluster.Start(t.Context(), pgcluster.Config{Dir: dir})
	require.ErrorContains(t, err, parent+" is closed to account")
	require.ErrorContains(t, err, "/var/lib/tasker/postgres")
	_, err = pgcluster.Start(t.Context(), pgcluster.Config{Dir: dir, Account: "nobody-such"})
	require.ErrorContains(t, err, "nobody-such")
}
