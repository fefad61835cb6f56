package pluginset

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/artifact"
)

// place is a directory with a plugins.toml.
type place struct{ dir string }

func newPlace(t *testing.T, toml string) place {
	t.Helper()
	p := place{t.TempDir()}
	p.write(t, "plugins.toml", toml, 0o600)
	return p
}

func (p place) write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(p.dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, replaceFile(path, []byte(text), mode))
	return path
}

// script writes an executable with the given text.
func (p place) script(t *testing.T, name, text string) string {
	t.Helper()
	return p.write(t, name, "#!/bin/sh\n# "+text+"\n", 0o700)
}

func (p place) toml() string { return filepath.Join(p.dir, "plugins.toml") }

func (p place) lock(t *testing.T, envs ...string) {
	t.Helper()
	_, err := Lock(t.Context(), LockOptions{Plugins: p.toml(), Environments: envs})
	require.NoError(t, err)
}

const two = "[plugin.handler.a]\npath = \"bin/a\"\n[plugin.handler.b]\npath = \"bin/b\"\n"

func (p place) slot(t *testing.T, s *Selector, name string) Slot {
	t.Helper()
	sel, err := s.Select()
	require.NoError(t, err)
	slot, ok := sel.Slot(config.KindHandler, name)
	require.True(t, ok)
	return slot
}

func TestOneBadFileLeavesTheOthers(t *testing.T) {
	t.Parallel()
	p := newPlace(t, two)
	p.script(t, "bin/b", "1")
	s := NewSelector(p.toml(), "development")
	sel, err := s.Select()
	require.NoError(t, err)
	require.Len(t, sel.Slots, 2)
	require.ErrorIs(t, sel.Slots[0].Err, os.ErrNotExist)
	require.NoError(t, sel.Slots[1].Err)
	first := sel.Slots[1].File.SHA256
	require.Len(t, first, 64)
	require.Equal(t, first, p.slot(t, s, "b").File.SHA256)
	p.script(t, "bin/b", "2") // the same size: the identity reveals the change
	require.NotEqual(t, first, p.slot(t, s, "b").File.SHA256)
	_, ok := sel.Slot(config.KindHandler, "c")
	require.False(t, ok)

	p.write(t, "plugins.toml", two+"path = 7\n", 0o600)
	_, err = s.Select()
	_, typed := errors.AsType[*config.Error](err)
	require.True(t, typed, err)
	p.write(t, "plugins.toml", two, 0o600)
	p.write(t, "plugins.lock", "format = 3", 0o600)
	_, err = s.Select()
	require.ErrorContains(t, err, "plugins.lock:1: format: this host reads format 1")
}

func TestLockIsEnforced(t *testing.T) {
	t.Parallel()
	p := newPlace(t, two)
	p.script(t, "bin/a", "1")
	p.script(t, "bin/b", "1")
	s := NewSelector(p.toml(), "production")
	require.ErrorContains(t, p.slot(t, s, "a").Err, "production runs only locked files, and there is no "+p.dir+"/plugins.lock (to run this file, lock it: tasker plugin lock --env production)")
	require.NoError(t, p.slot(t, NewSelector(p.toml(), "development"), "a").Err)

	p.lock(t, "production")
	locked := p.slot(t, s, "a")
	require.NoError(t, locked.Err)
	require.Equal(t, locked.File.SHA256, locked.Locked)

	p.script(t, "bin/a", "2")
	changed := p.slot(t, s, "a")
	require.ErrorContains(t, changed.Err, "sha256 is "+changed.File.SHA256+", but the one locked for production is "+locked.Locked)
	require.ErrorContains(t, changed.Err, "plugins.lock:5")
	require.ErrorContains(t, changed.Err, "tasker plugin lock --env production; otherwise restore the locked file")
	require.NoError(t, p.slot(t, s, "b").Err)

	other, err := s.At(mustSelect(t, s), p.slot(t, s, "b"), p.script(t, "elsewhere", "3"))
	require.NoError(t, err)
	require.ErrorContains(t, other.Err, "locked for production is", "another file for the slot is held to the same rule")

	p.write(t, "plugins.toml", two+"[plugin.handler.c]\npath = \"bin/a\"\n", 0o600)
	require.ErrorContains(t, p.slot(t, s, "c").Err, "plugins.lock has no entry for handler/c")
	p.write(t, "plugins.toml", two+"[plugin.handler.c]\npath = \"bin/a\"\nsha256 = \""+changed.File.SHA256+"\"\n", 0o600)
	require.NoError(t, p.slot(t, s, "c").Err, "a checksum in plugins.toml is a lock")
	p.write(t, "plugins.toml", two+"[env.production.lock]\nrequired = false\n", 0o600)
	require.NoError(t, p.slot(t, s, "a").Err)
}

func mustSelect(t *testing.T, s *Selector) *Selection {
	t.Helper()
	sel, err := s.Select()
	require.NoError(t, err)
	return sel
}

func TestPinAndPlatform(t *testing.T) {
	t.Parallel()
	pin := strings.Repeat("ab", 32)
	p := newPlace(t, "[plugin.handler.a]\npath = \"bin/a\"\nsha256 = \""+pin+"\"\n[plugin.handler.b]\npath = \"bin/b\"\n")
	p.script(t, "bin/a", "1")
	elf := make([]byte, 64)
	copy(elf, "\x7fELF\x02\x01\x01")
	elf[18] = 22 // s390
	p.write(t, "bin/b", string(elf), 0o700)
	s := NewSelector(p.toml(), "test")
	require.ErrorContains(t, p.slot(t, s, "a").Err, "the configured one is "+pin)
	require.ErrorContains(t, p.slot(t, s, "b").Err, "is not an executable for this machine: it is for linux/s390x, this is "+artifact.ThisPlatform)
}

// A plugin that is to run as a user who does not exist is refused, with the line
// in question; so is any other user's if the host may not become that user.
func TestUser(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "[defaults]\nuser = \"no-such-user\"\n[plugin.handler.a]\npath = \"bin/a\"\n[plugin.handler.b]\npath = \"bin/b\"\nuser = \"nobody\"\n[env.test.plugin.handler.a]\nuser = \"\"\n")
	p.script(t, "bin/a", "1")
	p.script(t, "bin/b", "1")
	require.NoError(t, p.slot(t, NewSelector(p.toml(), "test"), "a").Err, "the environment says so")
	s := NewSelector(p.toml(), "development")
	require.EqualError(t, p.slot(t, s, "a").Err, p.dir+`/bin/a: user: there is no user "no-such-user" on this machine (`+p.toml()+`:2) (create it, for example with useradd --system, or use another)`)
	require.Regexp(t, `^\S+/bin/a: user: there is no user .*; \S+/bin/a: production runs only locked files`,
		p.slot(t, NewSelector(p.toml(), "production"), "a").Err.Error(), "all of it in one line")
	err := p.slot(t, s, "b").Err
	if err != nil { // this test may not start processes of others; see TestAnotherUser
		require.ErrorContains(t, err, "user: the host may not run it as nobody: it lacks CAP_")
		require.ErrorContains(t, err, p.toml()+":7")
	}
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	p := newPlace(t, two)
	key := filepath.Join(p.dir, "key")
	public, err := Keygen(key)
	require.NoError(t, err)
	_, err = Keygen(key)
	require.ErrorIs(t, err, os.ErrExist, "a key is never overwritten")
	other, err := Keygen(filepath.Join(p.dir, "other"))
	require.NoError(t, err)
	a, b := p.script(t, "bin/a", "1"), p.script(t, "bin/b", "1")
	trust := func(keys string) { p.write(t, "plugins.toml", two+"[trust]\nkeys = ["+keys+"]\n", 0o600) }
	trust(`"` + public + `"`)
	s := NewSelector(p.toml(), "test")
	require.ErrorContains(t, p.slot(t, s, "a").Err, "it is not signed: there is no a.minisig beside it")

	signed, err := Sign(a, key, "")
	require.NoError(t, err)
	slot := p.slot(t, s, "a")
	require.NoError(t, slot.Err)
	require.Equal(t, signed.Key, slot.SignedBy)
	require.Equal(t, signed.SHA256, slot.File.SHA256)
	again, err := Verify(a, []string{other, key + ".pub"})
	require.NoError(t, err)
	require.Equal(t, signed, again)

	_, err = Sign(b, filepath.Join(p.dir, "other"), "")
	require.NoError(t, err)
	require.ErrorContains(t, p.slot(t, s, "b").Err, "which is not in trust.keys")
	trust(`"` + other + `", "` + public + `"`)
	require.NoError(t, p.slot(t, s, "b").Err)

	p.script(t, "bin/a", "2") // the signature is that of the previous file
	require.ErrorContains(t, p.slot(t, s, "a").Err, "its signature does not match")
	p.write(t, "bin/a.minisig", "garbage", 0o600)
	require.ErrorContains(t, p.slot(t, s, "a").Err, "its signature is not in minisign's format")
	_, err = Verify(a, []string{public})
	require.ErrorContains(t, err, "not in minisign's format")
	_, err = Sign(a, p.toml(), "")
	require.ErrorContains(t, err, "is not a minisign private key")
	_, err = Verify(a, []string{"nokey"})
	require.ErrorContains(t, err, "read the public key")
	trust("")
	require.NoError(t, p.slot(t, s, "a").Err)
}
