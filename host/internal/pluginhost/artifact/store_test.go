package artifact

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const program = "#!/bin/sh\nexit 0\n"

func setup(t *testing.T) (s *Store, path string) {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "a", "store"))
	require.NoError(t, err)
	path = filepath.Join(t.TempDir(), "plugin")
	require.NoError(t, os.WriteFile(path, []byte(program), 0o755))
	return s, path
}

func digest(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

func TestIntake(t *testing.T) {
	t.Parallel()
	s, path := setup(t)
	a, err := s.Intake(path, strings.ToUpper(digest(program)))
	require.NoError(t, err)
	require.Equal(t, digest(program), a.SHA256)
	require.Equal(t, filepath.Join(s.dir, a.SHA256), a.Path)
	require.EqualValues(t, len(program), a.Size)
	info, err := os.Stat(a.Path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o500), info.Mode())
	require.NoError(t, s.Verify(a))

	again, err := s.Intake(path, "")
	require.NoError(t, err)
	require.Equal(t, a, again)
}

func TestIntakeRefuses(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	header := func(machine elf.Machine) string {
		b := make([]byte, 64)
		copy(b, elf.ELFMAG)
		b[elf.EI_CLASS], b[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)
		binary.LittleEndian.PutUint16(b[18:], uint16(machine))
		return string(b)
	}
	write := func(content string, mode fs.FileMode) func(string) error {
		return func(path string) error {
			if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
				return err
			}
			return os.Chmod(path, mode)
		}
	}
	for _, tc := range []struct {
		name, sha, want string
		make            func(path string) error
	}{
		{name: "missing", make: func(string) error { return nil }, want: "no such file (build the plugin, or correct its path)"},
		{name: "directory", make: func(p string) error { return os.Mkdir(p, 0o755) }, want: "is not a regular file"},
		{name: "fifo", make: func(p string) error { return unix.Mkfifo(p, 0o700) }, want: "is not a regular file"},
		{name: "symlink", make: func(p string) error { return os.Symlink("/bin/sh", p) }, want: "is a symbolic link"},
		{name: "group-writable", make: write(program, 0o770), want: "is writable by others (mode 0770)"},
		{name: "no execute bit", make: write(program, 0o644), want: "is not executable (mode 0644)"},
		{name: "empty", make: write("", 0o755), want: "neither an ELF file nor a script"},
		{name: "text", make: write("just some text that is long enough", 0o755), want: "neither an ELF file nor a script"},
		{name: "other machine", make: write(header(elf.EM_MIPS), 0o755), want: "it is for EM_MIPS, this is EM_"},
		{name: "bad digest", sha: "abc", make: write(program, 0o755), want: "is not 64 hexadecimal digits"},
		{name: "other digest", sha: digest("x"), make: write(program, 0o755), want: "sha256 is " + digest(program) + ", but the configured one is " + digest("x")},
		{name: "other user's", make: func(p string) error {
			if err := write(program, 0o755)(p); err != nil || os.Geteuid() != 0 {
				return err
			}
			return os.Chown(p, 12345, 12345)
		}, want: "belongs to another user"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "plugin")
			require.NoError(t, tc.make(path))
			if tc.name == "other user's" && os.Geteuid() != 0 {
				path = "/proc/1/exe" // an executable of another user that a user can name
				tc.want = path
			}
			_, err := s.Intake(path, tc.sha)
			var typed *Error
			require.ErrorAs(t, err, &typed)
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, path)
		})
	}
	t.Cleanup(func() {
		entries, err := os.ReadDir(s.dir)
		require.NoError(t, err)
		require.Empty(t, entries, "refused files leave nothing in the store")
	})
}

func TestDirectoriesOpenToOthers(t *testing.T) {
	t.Parallel()
	s, path := setup(t)
	dir := filepath.Dir(path)
	require.NoError(t, os.Chmod(dir, 0o777))
	_, err := s.Intake(path, "")
	require.ErrorContains(t, err, "the plugin's directory is writable by others")
	require.NoError(t, os.Chmod(dir, 0o777|fs.ModeSticky))
	_, err = s.Intake(path, "")
	require.NoError(t, err)

	if os.Geteuid() == 0 { // its owner may replace what is in it, sticky or not
		require.NoError(t, os.Chown(dir, 12345, 12345))
		for _, mode := range []fs.FileMode{0o755, 0o777 | fs.ModeSticky} {
			require.NoError(t, os.Chmod(dir, mode))
			_, err = s.Intake(path, "")
			require.ErrorContains(t, err, "the plugin's directory belongs to another user")
		}
	}

	require.NoError(t, os.Chmod(s.dir, 0o750))
	_, err = Open(s.dir)
	require.ErrorContains(t, err, "the plugin store is open to others (mode 0750)")
	_, err = Open(path)
	require.Error(t, err)
}

func TestVerifySeesAChange(t *testing.T) {
	t.Parallel()
	s, path := setup(t)
	a, err := s.Intake(path, "")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(a.Path, 0o700))
	require.NoError(t, os.WriteFile(a.Path, []byte("#!/bin/sh\nexit 1\n"), 0o700))
	require.ErrorContains(t, s.Verify(a), "the stored copy has changed")
	require.NoError(t, os.Remove(a.Path))
	require.ErrorIs(t, s.Verify(a), fs.ErrNotExist)
}

func TestPrune(t *testing.T) {
	t.Parallel()
	s, path := setup(t)
	old := func(name string) string {
		p := filepath.Join(s.dir, name)
		require.NoError(t, os.WriteFile(p, nil, 0o500))
		past := time.Now().Add(-time.Hour)
		require.NoError(t, os.Chtimes(p, past, past))
		return p
	}
	kept, gone, temp := old(digest("kept")), old(digest("gone")), old(tempPrefix+"1")
	fresh, err := s.Intake(path, "")
	require.NoError(t, err)
	require.NoError(t, s.Keep(Artifact{Path: kept}))
	require.NoError(t, s.Prune(time.Minute))
	require.FileExists(t, kept)
	require.FileExists(t, fresh.Path)
	require.NoFileExists(t, gone)
	require.NoFileExists(t, temp)
}

// While files are taken in, other goroutines fork. None of the children may
// still hold a copy open for writing when it is executed ("text file busy").
func TestCopiesCanBeExecutedAtOnce(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	stop := make(chan struct{})
	var forks sync.WaitGroup
	for range 2 {
		forks.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = exec.Command("/bin/true").Run()
				}
			}
		})
	}
	dir := t.TempDir()
	for i := range 60 {
		path := filepath.Join(dir, "plugin")
		content := program + strings.Repeat("#", i) + "\n"
		require.NoError(t, os.WriteFile(path, []byte(content), 0o755))
		a, err := s.Intake(path, "")
		require.NoError(t, err)
		require.NoError(t, exec.Command(a.Path).Run())
	}
	close(stop)
	forks.Wait()
}
