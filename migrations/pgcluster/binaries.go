package pgcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// MinMajor is the oldest supported major version of PostgreSQL.
const MinMajor = 15

// ErrNoBinaries says that no usable PostgreSQL is installed. [Install] may help.
var ErrNoBinaries = errors.New("no PostgreSQL found")

// Binaries is a directory that holds the programs postgres and initdb.
type Binaries struct {
	Dir   string // absolute
	Major int    // such as 15
}

func (b Binaries) path(program string) string { return filepath.Join(b.Dir, program) }

// installRoots are the directories where packages install their binaries, one for
// each major version.
var installRoots = []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin"}

// FindBinaries looks for PostgreSQL in the configured directory, in $PG_BINDIR,
// where pg_config says, in the usual places of packages (the highest version
// first) and in $PATH. The first two are binding: if one is set but unusable,
// that is the error. If major is not 0, only that version is accepted, which is
// the version that existing data needs. The error wraps [ErrNoBinaries] if
// nothing was found.
func FindBinaries(configured string, major int) (Binaries, error) {
	for _, fixed := range []struct{ from, dir string }{{"the configured directory", configured}, {"$PG_BINDIR", os.Getenv("PG_BINDIR")}} {
		if fixed.dir == "" {
			continue
		}
		found, err := inspect(fixed.dir)
		if err != nil {
			return Binaries{}, fmt.Errorf("look for PostgreSQL in %s: %w", fixed.from, err)
		}
		if major != 0 && found.Major != major {
			return Binaries{}, &VersionError{Data: major, Found: []Binaries{found}}
		}
		return found, nil
	}
	var others []Binaries
	for _, dir := range candidates() {
		found, err := inspect(dir)
		switch {
		case err != nil: // not our concern: the next place may do
		case major == 0 || found.Major == major:
			return found, nil
		default:
			others = append(others, found)
		}
	}
	if len(others) > 0 {
		return Binaries{}, &VersionError{Data: major, Found: others}
	}
	return Binaries{}, fmt.Errorf("%w: version %d or later is needed; on Debian or Ubuntu: apt-get install postgresql; "+
		"elsewhere install postgresql-server, or set PG_BINDIR to the directory of postgres and initdb", ErrNoBinaries, MinMajor)
}

// VersionError says that the data directory belongs to another major version
// than the binaries that were found.
type VersionError struct {
	Data  int
	Found []Binaries
}

func (e *VersionError) Error() string {
	var found bytes.Buffer
	for i, b := range e.Found {
		if i > 0 {
			found.WriteString(", ")
		}
		fmt.Fprintf(&found, "%d in %s", b.Major, b.Dir)
	}
	return fmt.Sprintf("the data belongs to PostgreSQL %d, but only %s was found: install postgresql-%d, or move the data with pg_upgrade",
		e.Data, found.String(), e.Data)
}

func candidates() []string {
	var dirs []string
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, string(bytes.TrimSpace(out)))
	}
	var installed []string
	for _, pattern := range installRoots {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			continue // the patterns are constants
		}
		installed = append(installed, matches...)
	}
	slices.SortStableFunc(installed, func(a, b string) int { return majorIn(b) - majorIn(a) })
	dirs = append(dirs, installed...)
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	return dirs
}

var digits = regexp.MustCompile(`\d+`)

// majorIn reads the version from the path of an installation; 0 if there is none.
func majorIn(dir string) int {
	n, err := strconv.Atoi(digits.FindString(dir))
	if err != nil {
		return 0
	}
	return n
}

// inspect checks that a directory holds a PostgreSQL that we can use.
func inspect(dir string) (Binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Binaries{}, err
	}
	b := Binaries{Dir: dir}
	for _, program := range []string{"postgres", "initdb"} {
		info, err := os.Stat(b.path(program))
		if err != nil {
			return Binaries{}, err
		}
		if info.IsDir() || info.Mode()&0o111 == 0 {
			return Binaries{}, fmt.Errorf("%s is not a program", b.path(program))
		}
	}
	out, err := exec.Command(b.path("postgres"), "--version").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("ask %s for its version: %w", b.path("postgres"), err)
	}
	if b.Major = majorIn(string(out)); b.Major < MinMajor {
		return Binaries{}, fmt.Errorf("%s is version %d: want %d or later", b.path("postgres"), b.Major, MinMajor)
	}
	return b, nil
}

// Install installs the distribution's PostgreSQL with apt-get, as root or
// through a sudo that asks for no password. If neither is possible the error
// names the command for an administrator. The package starts a server of its
// own on TCP port 5432, which has nothing to do with a private cluster.
func Install(ctx context.Context) error {
	const byHand = "apt-get update && apt-get install --no-install-recommends postgresql"
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return fmt.Errorf("install PostgreSQL: this system has no apt-get; install PostgreSQL %d or later with its package manager", MinMajor)
	}
	prefix := []string{"env", "DEBIAN_FRONTEND=noninteractive", apt, "-q", "-y"}
	if os.Geteuid() != 0 {
		if err := exec.CommandContext(ctx, "sudo", "-n", "true").Run(); err != nil {
			return fmt.Errorf("install PostgreSQL: this needs root; have an administrator run: %s", byHand)
		}
		prefix = append([]string{"sudo", "-n"}, prefix...)
	}
	run := func(args ...string) error {
		argv := append(slices.Clone(prefix), args...)
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("install PostgreSQL (by hand: %s): %w\n%s", byHand, err, tail(out, 10))
		}
		return nil
	}
	// Even if a mirror cannot be refreshed, it may still have what its lists name.
	updateErr := run("update")
	if err := run("install", "--no-install-recommends", "postgresql"); err != nil {
		return errors.Join(err, updateErr)
	}
	return nil
}

// tail returns the last n lines of a program's output.
func tail(out []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}
