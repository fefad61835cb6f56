package payload

// Limits bounds a document. A field that is zero or negative means its default.
type Limits struct {
	MaxBytes int // of the text, with numbers written out; default 1 MiB, never more than 64 MiB
	MaxDepth int // of nested arrays and objects; default 64, never more than 128
}

// The defaults and the limits of the limits.
const (
	DefaultMaxBytes = 1 << 20
	DefaultMaxDepth = 64

	// HardMaxBytes stays below what jsonb can hold (strings of 256 MiB).
	HardMaxBytes = 64 << 20
	// HardMaxDepth stays far below the depth at which a server's stack ends.
	HardMaxDepth = 128
)

// ContextLimits returns the limits of a task's context.
func ContextLimits() Limits { return Limits{MaxBytes: 1 << 20} }

// ResultLimits returns the limits of a step's result.
func ResultLimits() Limits { return Limits{MaxBytes: 4 << 20} }

func (l Limits) withDefaults() Limits {
	if l.MaxBytes <= 0 {
		l.MaxBytes = DefaultMaxBytes
	}
	if l.MaxDepth <= 0 {
		l.MaxDepth = DefaultMaxDepth
	}
	return Limits{MaxBytes: min(l.MaxBytes, HardMaxBytes), MaxDepth: min(l.MaxDepth, HardMaxDepth)}
}
