package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
)

type chaosSettings struct {
	Greeting string `json:"greeting"`
}

func chaosOptions() sdk.Option {
	return sdk.WithOptions(chaosSettings{}, func(_ context.Context, o chaosSettings) error {
		if o.Greeting == "rude" {
			return &sdk.OptionError{Path: "/greeting", Message: "be polite"}
		}
		return nil
	})
}

func chaosHandlers() map[string]handler.Handler {
	return map[string]handler.Handler{
		"chaos.echo": handler.Func(echo),
		"chaos.fail": handler.Func(func(_ context.Context, s handler.Step) (handler.Result, error) {
			var how string
			_ = s.DecodeContext(&how)
			if how == "retryable" {
				return handler.Result{}, handler.Retryable(3*time.Second, "BUSY", "come back")
			}
			return handler.Result{}, handler.Permanent("NO", "never")
		}),
		"chaos.crash": handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			fmt.Fprintln(os.Stderr, "last words")
			os.Exit(7)
			return handler.Result{}, nil
		}),
		"chaos.wait": handler.Func(func(ctx context.Context, _ handler.Step) (handler.Result, error) {
			<-ctx.Done()
			return handler.Result{}, ctx.Err()
		}),
		"chaos.progress": handler.Func(func(ctx context.Context, _ handler.Step) (handler.Result, error) {
			handler.Progress(ctx, 40, "nearly half")
			<-ctx.Done()
			return handler.Result{}, ctx.Err()
		}),
		"chaos.hang": handler.Func(func(context.Context, handler.Step) (handler.Result, error) { select {} }),
		"chaos.env": handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			return handler.JSON(os.Environ())
		}),
		"chaos.proc": handler.Func(func(_ context.Context, s handler.Step) (handler.Result, error) {
			var name string
			_ = s.DecodeContext(&name)
			content, err := os.ReadFile("/proc/self/" + name)
			if err != nil {
				return handler.Result{}, err
			}
			return handler.JSON(string(content))
		}),
		"chaos.fds": handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			fds := map[string]string{}
			for n := range 256 {
				if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n)); err == nil {
					fds[fmt.Sprint(n)] = target
				}
			}
			return handler.JSON(fds)
		}),
		"chaos.reach": handler.Func(func(_ context.Context, s handler.Step) (handler.Result, error) {
			var path string
			_ = s.DecodeContext(&path)
			return handler.JSON(reach(path))
		}),
		"chaos.child": handler.Func(func(_ context.Context, s handler.Step) (handler.Result, error) {
			child := exec.Command("sleep", "1000")
			child.SysProcAttr = &syscall.SysProcAttr{Setsid: string(s.Context) == `"leaves"`}
			child.Stdout, child.Stderr = os.Stdout, os.Stderr // it holds the pipes
			if err := child.Start(); err != nil {
				return handler.Result{}, err
			}
			return handler.JSON(child.Process.Pid)
		}),
		"chaos.big": handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			return handler.Result{Value: make([]byte, 50<<20)}, nil
		}),
		"chaos.hog": handler.Func(func(ctx context.Context, _ handler.Step) (handler.Result, error) {
			all := make([]byte, 300<<20)
			for i := 0; i < len(all); i += 4096 {
				all[i] = 1 // memory is allocated when it is used
			}
			<-ctx.Done()
			return handler.Result{Value: all[:1]}, ctx.Err()
		}),
		"chaos.print": handler.Func(func(context.Context, handler.Step) (handler.Result, error) {
			fmt.Println("printed to stdout")
			fmt.Fprintln(os.Stderr, "[WARN] printed to stderr")
			return handler.Result{}, nil
		}),
	}
}

// reach opens a file, enters a directory or calls a socket, and returns the
// result.
func reach(path string) string {
	connection, err := net.Dial("unix", path)
	if errors.Is(err, syscall.ECONNREFUSED) { // it is not a socket
		var f *os.File
		if f, err = os.Open(path); err == nil {
			err = f.Close()
		}
	} else if err == nil {
		err = connection.Close()
	}
	if err != nil {
		return err.Error()
	}
	return "reached"
}

func withEcho(echo handler.Func) map[string]handler.Handler {
	all := chaosHandlers()
	all["chaos.echo"] = echo
	return all
}

func echo(_ context.Context, s handler.Step) (handler.Result, error) {
	return handler.Result{Value: s.Context}, nil
}
