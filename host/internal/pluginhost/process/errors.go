package process

import (
	"fmt"
	"strings"
	"syscall"
	"time"
)

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code; -1 if a signal ended the process.
	Code int
	// Signal ended the process; 0 if none did.
	Signal syscall.Signal
	// Asked is set if the host ended it, or told it to end.
	Asked bool
	// Starved is set if the kernel killed a process of its control group because
	// the group had no more memory.
	Starved bool
	// Stderr is the end of its standard error, at most 4 KiB.
	Stderr string
	// MaxRSS is its peak memory use, in bytes.
	MaxRSS int64
	// CPU is the processor time it used.
	CPU time.Duration
}

// String describes briefly how the process ended.
func (e Exit) String() string {
	switch {
	case e.Starved && !e.Asked:
		return "killed by the kernel: it exceeded max_memory"
	case e.Signal == syscall.SIGKILL && !e.Asked:
		return "killed by signal 9, not by the host: out of memory?"
	case e.Signal != 0:
		return fmt.Sprintf("ended by signal %d (%s)", int(e.Signal), e.Signal)
	default:
		return fmt.Sprintf("exit code %d", e.Code)
	}
}

// StartError says why a process did not become a plugin.
type StartError struct {
	// Plugin is the name given in [Config].
	Plugin string
	// Reason says what went wrong.
	Reason string
	// Hint says what to do; may be empty.
	Hint string
	// Stdout is what the process printed before the handshake, at most 4 KiB.
	Stdout string
	// Exit is how the process ended; nil if it never ran.
	Exit *Exit
	// Err is the cause, if there is one.
	Err error
}

var _ error = (*StartError)(nil)

// Error returns everything; the end of standard error comes last.
func (e *StartError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "start plugin %s: %s", e.Plugin, e.Reason)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	if e.Exit != nil && e.Exit.Stderr != "" {
		fmt.Fprintf(&b, "; its standard error ends with:\n%s", strings.TrimRight(e.Exit.Stderr, "\n"))
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }
