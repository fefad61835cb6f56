package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

// Streams are what a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Terminal bool             // Out is a terminal
	Now      func() time.Time // nil: time.Now
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// Main runs the command of this process and returns its exit code.
func Main(rt Runtime) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	abort := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the process
		<-signals
		cancel(errInterrupted)
		<-signals
		close(abort)
		signal.Stop(signals) // a third one ends the process
	}()
	return Run(ctx, rt, Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv,
		Terminal: term.IsTerminal(int(os.Stdout.Fd())),
	}, abort, os.Args[1:])
}

// Run runs one command line and returns the exit code. ctx ends at the first
// signal, abort is closed at the second.
func Run(ctx context.Context, rt Runtime, s Streams, abort <-chan struct{}, args []string) int {
	out := &output{to: s.Out}
	a := &app{
		rt: rt, in: s.In, out: out, err: s.Err, getenv: s.Getenv, abort: abort, now: time.Now,
		terminal: s.Terminal,
		colour:   s.Terminal && s.Getenv("NO_COLOR") == "" && s.Getenv("TERM") != "dumb",
	}
	if s.Now != nil {
		a.now = s.Now
	}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(out)
	root.SetErr(s.Err)
	strict(root) // completion prints to root's output as it is now
	cmd, err := root.ExecuteContextC(ctx)
	a.usage = cmd.UseLine()
	if err != nil && !a.ran {
		err = &usageError{err: err}
	}
	if err == nil {
		err = out.fault()
	}
	return a.report(ctx, err)
}
