package wire

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// maxParts is how many fields a message may have, counting each element of a list:
// more than there can be steps in flight. Empty elements take two bytes on the
// wire, but sixty times as much in memory.
const maxParts = 1 << 18

// bounded decodes messages, unless they have too many parts.
type bounded struct{ encoding.CodecV2 }

// Unmarshal reads a message.
func (b bounded) Unmarshal(data mem.BufferSlice, v any) error {
	const least = 2 // bytes of a field
	if data.Len() <= least*maxParts {
		return b.CodecV2.Unmarshal(data, v)
	}
	whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer whole.Free()
	if n := parts(whole.ReadOnlyData()); n > maxParts {
		return fmt.Errorf("a message with %d parts, more than %d", n, maxParts)
	}
	return b.CodecV2.Unmarshal(mem.BufferSlice{whole}, v)
}

// parts counts fields, up to the first one that cannot be read.
func parts(message []byte) (n int) {
	for len(message) > 0 {
		_, _, size := protowire.ConsumeField(message)
		if size < 0 {
			return n
		}
		message = message[size:]
		n++
	}
	return n
}
