package pgtest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
	"github.com/tasker-systems/tasker-host/migrations/pgmqcompat"
)

// ExtensionServer starts a private server that offers an extension named pgmq,
// as managed services do. It is not the real extension, which is in no package
// archive, but our compatible SQL packaged as one: its objects belong to the
// extension, and must be treated accordingly.
func ExtensionServer(t testing.TB) Server {
	t.Helper()
	bin, err := pgcluster.FindBinaries("", 0)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	programs := newBaseIn(t, tmp) // running programs from memory may not be allowed
	relocated, err := relocate(filepath.Join(programs, "installation"), bin.Dir, map[string]string{
		"pgmq.control":                           "comment = 'pgmq-compatible queues'\ndefault_version = '" + pgmqcompat.Interface + "'\nrelocatable = false\nschema = pgmq\n",
		"pgmq--" + pgmqcompat.Interface + ".sql": pgmqcompat.SQL,
	})
	if err != nil {
		t.Fatalf("pgtest: make an installation of PostgreSQL with more extensions: %v", err)
	}
	return Server{admin: startPrivate(t, newBase(t), relocated, nil).DSN()}
}

// relocate makes an installation of PostgreSQL below root that differs from the
// one in binDir by additional extension files. It consists of links, except for
// the programs: PostgreSQL finds its other files relative to where its programs
// really are. It returns the directory of the programs.
func relocate(root, binDir string, extensions map[string]string) (string, error) {
	shareDir, err := pgConfig(binDir, "--sharedir")
	if err != nil {
		return "", err
	}
	libDir, err := pgConfig(binDir, "--pkglibdir")
	if err != nil {
		return "", err
	}
	newBin, newShare := filepath.Join(root, binDir), filepath.Join(root, shareDir)
	for _, dir := range []string{newBin, filepath.Join(newShare, "extension"), filepath.Dir(filepath.Join(root, libDir))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
	}
	if err := os.Symlink(libDir, filepath.Join(root, libDir)); err != nil {
		return "", err
	}
	for _, dir := range []string{"", "extension"} {
		if err := linkAll(filepath.Join(shareDir, dir), filepath.Join(newShare, dir)); err != nil {
			return "", err
		}
	}
	for name, text := range extensions {
		if err := os.WriteFile(filepath.Join(newShare, "extension", name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	for _, program := range []string{"postgres", "initdb"} {
		text, err := os.ReadFile(filepath.Join(binDir, program))
		if err != nil {
			return "", err
		}
		// No child that is forked now may inherit the open file: a program cannot
		// be executed while somebody has it open for writing.
		syscall.ForkLock.RLock()
		err = os.WriteFile(filepath.Join(newBin, program), text, 0o755)
		syscall.ForkLock.RUnlock()
		if err != nil {
			return "", err
		}
	}
	return newBin, nil
}

// linkAll links the entries of one directory into another, except those that
// exist there.
func linkAll(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := os.Lstat(filepath.Join(to, e.Name())); err == nil {
			continue
		}
		if err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func pgConfig(binDir, option string) (string, error) {
	out, err := exec.Command(filepath.Join(binDir, "pg_config"), option).Output()
	if err != nil {
		return "", fmt.Errorf("ask pg_config for %s: %w", option, err)
	}
	return string(bytes.TrimSpace(out)), nil
}
