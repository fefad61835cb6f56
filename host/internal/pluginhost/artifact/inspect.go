package artifact

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
	"runtime"
)

// AnyPlatform is the platform of a script.
const AnyPlatform = "any"

// ThisPlatform is what this host executes besides scripts.
const ThisPlatform = runtime.GOOS + "/" + runtime.GOARCH

// Inspected describes a file that has not been taken in.
type Inspected struct {
	Path     string
	SHA256   string // 64 hexadecimal digits in lower case
	Size     int64  // in bytes
	Platform string // such as linux/amd64, or AnyPlatform
}

// Inspect checks a file as [Store.Intake] does, but accepts any platform and copies
// nothing. wrap, if not nil, wraps the reader of the file, for callers that want to see
// the hashed bytes.
func Inspect(path string, wrap func(io.Reader) io.Reader) (Inspected, error) {
	f, err := open(path)
	if err != nil {
		return Inspected{}, err
	}
	defer f.Close()
	platform, err := platformOf(path, f)
	if err != nil {
		return Inspected{}, err
	}
	var r io.Reader = io.LimitReader(f, MaxBytes+1)
	if wrap != nil {
		r = wrap(r)
	}
	h := sha256.New()
	size, err := io.Copy(h, r)
	switch {
	case err != nil:
		return Inspected{}, &Error{Path: path, Reason: "cannot be read", Err: err}
	case size > MaxBytes:
		return Inspected{}, &Error{Path: path, Reason: "is larger than 1 GiB", Fix: "give the path of the plugin's executable"}
	}
	return Inspected{Path: path, SHA256: hex.EncodeToString(h.Sum(nil)), Size: size, Platform: platform}, nil
}

// platformOf returns the platform that a file is built for. A file that is not an
// executable is rejected with the errors of checkExecutable.
func platformOf(path string, f *os.File) (string, error) {
	head := make([]byte, 20)
	n, _ := f.ReadAt(head, 0) // a short file is reported below
	if n >= 2 && string(head[:2]) == "#!" {
		return AnyPlatform, nil
	}
	if n == 20 && string(head[:4]) == elf.ELFMAG {
		var order binary.ByteOrder = binary.LittleEndian
		if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
			order = binary.BigEndian
		}
		machine := elf.Machine(order.Uint16(head[18:]))
		for arch, m := range machines {
			// ppc64 and ppc64le differ only in their byte order.
			if m == machine && (m != elf.EM_PPC64 || (arch == "ppc64le") == (order == binary.LittleEndian)) {
				return "linux/" + arch, nil
			}
		}
	}
	return ThisPlatform, checkExecutable(path, f)
}
