package artifact

import (
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

func checkDigest(path, want string) error {
	if want == "" {
		return nil
	}
	if raw, err := hex.DecodeString(want); err != nil || len(raw) != 32 {
		return &Error{Path: path, Reason: fmt.Sprintf("configured sha256 %.80q is not 64 hexadecimal digits", want), Fix: "use the output of sha256sum"}
	}
	return nil
}

// open opens a file once and checks the opened file, not its name. O_NONBLOCK
// keeps a FIFO from hanging the host.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Error{Path: path, Reason: "no such file", Fix: "build the plugin, or correct its path", Err: fs.ErrNotExist}
	case errors.Is(err, unix.ELOOP):
		return nil, &Error{Path: path, Reason: "is a symbolic link", Fix: "give the path of the file itself", Err: unix.ELOOP}
	case err != nil:
		return nil, &Error{Path: path, Reason: "cannot be read", Err: err}
	}
	if err := errors.Join(checkFile(path, f), checkParent(path)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func checkFile(path string, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return &Error{Path: path, Reason: "cannot be read", Err: err}
	}
	mode := info.Mode()
	switch {
	case !mode.IsRegular():
		return &Error{Path: path, Reason: "is not a regular file (" + mode.String() + ")", Fix: "give the path of an executable file"}
	case !owned(info, true):
		return &Error{Path: path, Reason: "belongs to another user", Fix: "chown it to the host's user or to root"}
	case mode.Perm()&0o022 != 0:
		return &Error{Path: path, Reason: fmt.Sprintf("is writable by others (mode %04o)", mode.Perm()), Fix: "chmod go-w " + path}
	case mode.Perm()&0o111 == 0:
		return &Error{Path: path, Reason: fmt.Sprintf("is not executable (mode %04o)", mode.Perm()), Fix: "chmod +x " + path}
	}
	return nil
}

// checkParent rejects a directory in which others could replace the file. A sticky one,
// such as /tmp, is fine: only the owner can do so there.
func checkParent(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	if err != nil {
		return &Error{Path: dir, Reason: "cannot be read", Err: err}
	}
	if !owned(info, true) {
		return &Error{Path: dir, Reason: "the plugin's directory belongs to another user", Fix: "chown it to the host's user or to root"}
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return &Error{Path: dir, Reason: fmt.Sprintf("the plugin's directory is writable by others (mode %04o)", info.Mode().Perm()), Fix: "chmod go-w " + dir}
	}
	return nil
}

// owned reports whether a file belongs to the user of this process or, if orRoot is set,
// to root.
func owned(info fs.FileInfo, orRoot bool) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (int(st.Uid) == os.Geteuid() || orRoot && st.Uid == 0)
}

// machines maps GOARCH to the ELF machine; other architectures are not checked.
var machines = map[string]elf.Machine{
	"386": elf.EM_386, "amd64": elf.EM_X86_64, "arm": elf.EM_ARM, "arm64": elf.EM_AARCH64,
	"loong64": elf.EM_LOONGARCH, "ppc64": elf.EM_PPC64, "ppc64le": elf.EM_PPC64,
	"riscv64": elf.EM_RISCV, "s390x": elf.EM_S390,
}

// checkExecutable checks the first bytes: an ELF file for this machine, or a script that
// names its interpreter. It leaves the file at its beginning.
func checkExecutable(path string, f *os.File) error {
	head := make([]byte, 20)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return &Error{Path: path, Reason: "cannot be read", Err: err}
	}
	head = head[:n]
	switch {
	case n >= 2 && string(head[:2]) == "#!":
		return nil
	case n < 20 || string(head[:4]) != elf.ELFMAG:
		return &Error{Path: path, Reason: "is not an executable for this machine: neither an ELF file nor a script", Fix: "build it with GOOS=linux GOARCH=" + runtime.GOARCH}
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	got := elf.Machine(order.Uint16(head[18:]))
	if want, known := machines[runtime.GOARCH]; known && got != want {
		return &Error{Path: path, Reason: fmt.Sprintf("is not an executable for this machine: it is for %s, this is %s", got, want), Fix: "build it with GOOS=linux GOARCH=" + runtime.GOARCH}
	}
	return nil
}
