package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

func handlers() map[string]handler.Handler {
	return map[string]handler.Handler{
		"chaos.echo":    handler.Func(echo),
		"chaos.sleep":   handler.Func(sleep),
		"chaos.hang":    handler.Func(func(context.Context, handler.Step) (handler.Result, error) { select {} }),
		"chaos.crash":   handler.Func(crash),
		"chaos.panic":   handler.Func(func(context.Context, handler.Step) (handler.Result, error) { panic("chaos") }),
		"chaos.invalid": handler.Func(invalid),
		"chaos.big":     handler.Func(big),
		"chaos.flood":   handler.Func(flood),
		"chaos.env":     handler.Func(env),
		"chaos.fork":    handler.Func(forkStep),
		"chaos.trace":   handler.Func(traced),
	}
}

func echo(_ context.Context, s handler.Step) (handler.Result, error) {
	return handler.Result{Value: s.Context}, nil
}

func sleep(ctx context.Context, s handler.Step) (handler.Result, error) {
	var in struct{ MS int }
	if err := s.DecodeContext(&in); err != nil {
		return handler.Result{}, handler.Invalid("INPUT", "%v", err)
	}
	select {
	case <-time.After(time.Duration(in.MS) * time.Millisecond):
		return handler.JSON(map[string]int{"slept_ms": in.MS})
	case <-ctx.Done():
		return handler.Result{}, context.Cause(ctx)
	}
}

func crash(_ context.Context, s handler.Step) (handler.Result, error) {
	in := struct{ How string }{"exit"}
	if err := s.DecodeContext(&in); err != nil {
		return handler.Result{}, handler.Invalid("INPUT", "%v", err)
	}
	var err error
	switch in.How {
	case "exit":
		fmt.Fprintln(os.Stderr, "chaos: had enough")
		os.Exit(7)
	case "kill":
		err = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "segv":
		err = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
	case "fatal":
		debug.SetMaxStack(1 << 20)                                // the default allows a gigabyte, and takes half a minute
		err = fmt.Errorf("the stack held %d frames", overflow(0)) // not reached: it cannot be recovered
	default:
		return handler.Result{}, handler.Invalid("INPUT", "no way to crash named %q", in.How)
	}
	if err != nil {
		return handler.Result{}, err
	}
	select {} // until the signal arrives
}

// overflow exhausts the stack: no depth is enough.
func overflow(depth int) int {
	if depth < 0 {
		return depth
	}
	return 1 + overflow(depth+1)
}

func invalid(context.Context, handler.Step) (handler.Result, error) {
	return handler.Result{Value: []byte(`{"almost": "JSON"`)}, nil
}

func big(_ context.Context, s handler.Step) (handler.Result, error) {
	in := struct{ Bytes int }{50 << 20}
	if err := s.DecodeContext(&in); err != nil || in.Bytes < 2 {
		return handler.Result{}, handler.Invalid("INPUT", "bytes %d: %v", in.Bytes, err)
	}
	return handler.Result{Value: jsonString(in.Bytes)}, nil
}

// jsonString returns a string that takes n bytes in JSON.
func jsonString(n int) json.RawMessage {
	value := bytes.Repeat([]byte("x"), n)
	value[0], value[n-1] = '"', '"'
	return value
}

func flood(ctx context.Context, s handler.Step) (handler.Result, error) {
	in := struct {
		Lines, Bytes int
		To           string
	}{100_000, 200, "stderr"}
	if err := s.DecodeContext(&in); err != nil || in.Bytes < 1 {
		return handler.Result{}, handler.Invalid("INPUT", "bytes %d: %v", in.Bytes, err)
	}
	to := os.Stderr
	if in.To == "stdout" {
		to = os.Stdout
	}
	line := strings.Repeat("x", in.Bytes-1) + "\n"
	for range in.Lines {
		if ctx.Err() != nil {
			return handler.Result{}, context.Cause(ctx)
		}
		if _, err := io.WriteString(to, line); err != nil {
			return handler.Result{}, err
		}
	}
	return handler.JSON(map[string]int{"lines": in.Lines})
}

// env returns the environment, arguments and files of the process.
func env(context.Context, handler.Step) (handler.Result, error) {
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return handler.Result{}, err
	}
	open := map[string]string{}
	for _, f := range files {
		open[f.Name()], _ = os.Readlink("/proc/self/fd/" + f.Name()) // the directory's own descriptor is closed by now
	}
	directory, err := os.Getwd()
	if err != nil {
		return handler.Result{}, err
	}
	return handler.JSON(map[string]any{
		"env": os.Environ(), "args": os.Args, "directory": directory, "files": open,
		"pid": os.Getpid(), "uid": os.Getuid(),
	})
}

func forkStep(context.Context, handler.Step) (handler.Result, error) {
	pid, err := fork()
	if err != nil {
		return handler.Result{}, err
	}
	return handler.JSON(map[string]int{"pid": pid})
}

// traced returns the trace that the step is part of.
func traced(_ context.Context, step handler.Step) (handler.Result, error) {
	return handler.JSON(map[string]string{"traceparent": step.Traceparent})
}
