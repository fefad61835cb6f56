package artifact

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInspect(t *testing.T) {
	t.Parallel()
	header := func(machine elf.Machine, data elf.Data) string {
		b := make([]byte, 64)
		copy(b, elf.ELFMAG)
		b[elf.EI_CLASS], b[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(data)
		var order binary.ByteOrder = binary.LittleEndian
		if data == elf.ELFDATA2MSB {
			order = binary.BigEndian
		}
		order.PutUint16(b[18:], uint16(machine))
		return string(b)
	}
	for platform, content := range map[string]string{
		AnyPlatform:     program,
		"linux/amd64":   header(elf.EM_X86_64, elf.ELFDATA2LSB),
		"linux/arm64":   header(elf.EM_AARCH64, elf.ELFDATA2LSB),
		"linux/ppc64":   header(elf.EM_PPC64, elf.ELFDATA2MSB),
		"linux/ppc64le": header(elf.EM_PPC64, elf.ELFDATA2LSB),
		"linux/s390x":   header(elf.EM_S390, elf.ELFDATA2MSB),
	} {
		path := filepath.Join(t.TempDir(), "plugin")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o755))
		var seen bytes.Buffer
		got, err := Inspect(path, func(r io.Reader) io.Reader { return io.TeeReader(r, &seen) })
		require.NoError(t, err)
		require.Equal(t, Inspected{Path: path, SHA256: digest(content), Size: int64(len(content)), Platform: platform}, got)
		require.Equal(t, content, seen.String(), "what was shown is what was hashed")
	}
	path := filepath.Join(t.TempDir(), "plugin")
	_, err := Inspect(path, nil)
	require.ErrorContains(t, err, "no such file")
	require.NoError(t, os.WriteFile(path, []byte("just text"), 0o755))
	_, err = Inspect(path, nil)
	require.ErrorContains(t, err, "neither an ELF file nor a script")
}
