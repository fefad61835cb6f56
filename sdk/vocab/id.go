package vocab

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// A step's UUID is its task's UUID plus its number. Task UUIDs are version 7 with the low 20
// bits zero, which leaves 54 random bits within a millisecond; step n of the task (counted from
// 0) has n+1 in those bits. So a step's row is found by its task and its number, one index
// serves both, and the steps of a task sort after it. Readers outside need not know this: to
// them, these are ordinary version 7 UUIDs.
const (
	stepBits = 20

	// MaxSteps is the largest number of steps a task can have.
	MaxSteps = 1<<stepBits - 1

	stepMask = 1<<stepBits - 1
)

// UUID is the binary form of a UUID. It converts to and from the types of UUID libraries.
type UUID [16]byte

// String returns the canonical form: 36 characters in lower case.
func (u UUID) String() string {
	var b [36]byte
	return string(u.Append(b[:0]))
}

// Append appends the canonical form to b.
func (u UUID) Append(b []byte) []byte {
	b = append(hex.AppendEncode(b, u[0:4]), '-')
	b = append(hex.AppendEncode(b, u[4:6]), '-')
	b = append(hex.AppendEncode(b, u[6:8]), '-')
	b = append(hex.AppendEncode(b, u[8:10]), '-')
	return hex.AppendEncode(b, u[10:16])
}

// ParseUUID parses the canonical form, in upper or lower case. It accepts no other form, such
// as braces or a URN.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, fmt.Errorf("%.40q is not a UUID: want 8-4-4-4-12 hexadecimal digits", s)
	}
	digits := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(u[:], []byte(digits)); err != nil {
		return UUID{}, fmt.Errorf("%.40q is not a UUID: want 8-4-4-4-12 hexadecimal digits", s)
	}
	return u, nil
}

// TaskID returns u as a task's UUID, with the bits that number steps cleared.
func TaskID(u UUID) UUID { return withNumber(u, 0) }

// StepID returns the UUID of step number n of the task, 0 ≤ n < MaxSteps.
func StepID(task UUID, n int) UUID { return withNumber(task, uint32(n)+1) } // bounded by MaxSteps

// SplitStepID returns the task and the number of the step that a UUID identifies. ok is false
// if the UUID identifies a task.
func SplitStepID(step UUID) (task UUID, n int, ok bool) {
	number := binary.BigEndian.Uint32(step[12:16]) & stepMask
	if number == 0 {
		return step, 0, false
	}
	return TaskID(step), int(number) - 1, true
}

func withNumber(u UUID, n uint32) UUID {
	low := binary.BigEndian.Uint32(u[12:16])
	binary.BigEndian.PutUint32(u[12:16], low&^stepMask|n)
	return u
}
