package migrations

import (
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/tasker-systems/tasker-host/migrations/pgmqcompat"
)

//go:embed sql/*.sql
var embedded embed.FS

// series is an ordered set of migration files.
type series struct {
	fsys        fs.FS
	files       []file
	lockTimeout string // of the statements
}

type file struct {
	version  int64
	name     string
	checksum string // SHA-256 of the file, in hex
}

func embeddedSeries() (*series, error) {
	fsys, err := fs.Sub(embedded, "sql")
	if err != nil {
		return nil, err
	}
	return readSeries(fsys)
}

func readSeries(fsys fs.FS) (*series, error) {
	names, err := fs.Glob(fsys, "*.sql")
	if err != nil {
		return nil, err
	}
	s := &series{fsys: fsys, lockTimeout: lockTimeout}
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		digits, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || version < 1 {
			return nil, fmt.Errorf("migration %s: the name must begin with a number and an underscore", name)
		}
		sum := sha256.Sum256(text)
		s.files = append(s.files, file{version: version, name: name, checksum: hex.EncodeToString(sum[:])})
	}
	slices.SortFunc(s.files, func(a, b file) int { return cmp.Compare(a.version, b.version) })
	return s, nil
}

// latest is the version that this binary migrates to.
func (s *series) latest() int64 {
	if len(s.files) == 0 {
		return 0
	}
	return s.files[len(s.files)-1].version
}

func (s *series) byVersion(version int64) (file, bool) {
	i, ok := slices.BinarySearchFunc(s.files, version, func(f file, v int64) int { return cmp.Compare(f.version, v) })
	if !ok {
		return file{}, false
	}
	return s.files[i], true
}

// Latest is the schema version that this binary works with.
func Latest() (int64, error) {
	s, err := embeddedSeries()
	if err != nil {
		return 0, err
	}
	return s.latest(), nil
}

// Digest identifies everything that [Up] would install, including the compatible
// queues: databases with the same digest are alike.
func Digest() (string, error) {
	s, err := embeddedSeries()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s %x\n", pgmqcompat.Mark(), sha256.Sum256([]byte(pgmqcompat.SQL)))
	for _, f := range s.files {
		fmt.Fprintf(h, "%s %s\n", f.name, f.checksum)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
