package fulfillment

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// ids makes the identifiers of one step. They look random but are not: every
// attempt of the step makes the same ones, which keeps a repeated attempt from
// reserving or charging a second time. When an operator has the step run again,
// its idempotency key changes, and so do they.
type ids struct {
	key  string
	unix int64
}

func (s *service) idsOf(step handler.Step) ids {
	return ids{key: step.IdempotencyKey, unix: s.taskTime(step).Unix()}
}

// taskTime is when the task was created, read from its UUID: the only time that
// is the same for every attempt. For a UUID that contains no time, it is the
// current time.
func (s *service) taskTime(step handler.Step) time.Time {
	const version = 7
	u, err := vocab.ParseUUID(step.TaskUUID)
	if err != nil || u[6]>>4 != version {
		return s.now()
	}
	millis := binary.BigEndian.Uint64(u[0:8]) >> 16 // the first 48 bits
	return time.UnixMilli(int64(millis))
}

// dated returns PREFIX-<unix seconds>-<digits hex digits>.
func (i ids) dated(prefix string, digits int) string {
	return fmt.Sprintf("%s-%d-%s", prefix, i.unix, i.hex(prefix, digits))
}

// hex returns up to 64 hex digits that depend on the step and the purpose.
func (i ids) hex(purpose string, digits int) string {
	sum := i.hash(purpose)
	return hex.EncodeToString(sum[:])[:digits]
}

// number returns a number in [0, n) that depends on the step and the purpose.
func (i ids) number(purpose string, n uint64) uint64 {
	sum := i.hash(purpose)
	return binary.BigEndian.Uint64(sum[:8]) % n
}

func (i ids) hash(purpose string) [sha256.Size]byte {
	return sha256.Sum256([]byte(purpose + "\x00" + i.key))
}
