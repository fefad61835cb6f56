package runas

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Users and groups are found by name and by number; for missing ones the error
// says what to do.
func TestLookup(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text     string
		uid, gid uint32
		wrong    string
	}{
		{text: "root"},
		{text: "root:0"},
		{text: "0:root"},
		{text: "0:4242", gid: 4242},
		{text: "4000000001:4000000002", uid: 4000000001, gid: 4000000002},
		{text: "4000000001", wrong: `the user 4000000001 has no entry on this machine that gives its group (give the group too: 4000000001:GROUP)`},
		{text: "no-such-user", wrong: `there is no user "no-such-user" on this machine (create it, for example with useradd --system, or use another)`},
		{text: "root:no-such-group", wrong: `there is no group "no-such-group" on this machine (create it, for example with groupadd --system, or use another)`},
		{text: "4294967295:1", wrong: `there is no user "4294967295" on this machine (create it, for example with useradd --system, or use another)`},
	} {
		u, err := lookup(c.text)
		if c.wrong != "" {
			require.EqualError(t, err, c.wrong)
			continue
		}
		require.NoError(t, err, c.text)
		require.Equal(t, &User{Name: c.text, UID: c.uid, GID: c.gid}, u)
	}
}

// A host that lacks a capability says which, and does without the one that only
// limits need.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	all := uint64(1) << unix.CAP_SYS_RESOURCE
	for _, c := range needed {
		all |= 1 << c.bit
	}
	u := &User{Name: "nobody", UID: 65534, GID: 65534}
	require.NoError(t, u.allow(all))
	require.Equal(t, "user nobody", u.String())
	require.Equal(t, "runs as nobody (user 65534, group 65534, no other groups)", u.Report())

	require.NoError(t, u.allow(all&^(1<<unix.CAP_SYS_RESOURCE)))
	require.Equal(t, "user nobody (not enforced: open files)", u.String())

	for _, c := range needed {
		require.ErrorContains(t, u.allow(all&^(1<<c.bit)), "the host may not run it as nobody: it lacks "+c.name+" (start the host as root")
	}
	require.ErrorContains(t, u.allow(0), "lacks CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_KILL")
}

// The host's own user needs no capabilities.
func TestOwnUser(t *testing.T) {
	t.Parallel()
	held, err := capabilities()
	require.NoError(t, err)
	if os.Geteuid() == 0 {
		require.NotZero(t, held)
	}
	for _, own := range []string{"", fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid())} {
		u, err := Find(own)
		require.NoError(t, err)
		require.Nil(t, u)
	}
}
