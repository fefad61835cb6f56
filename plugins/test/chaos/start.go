package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

func wellBehaved() { sdk.Serve(sdk.Handlers("chaos", "1.0.0", handlers(), sdk.MaxInFlight(64))) }

// hang waits forever, in a way that the Go runtime does not report as a
// deadlock.
func hang() {
	for {
		time.Sleep(time.Hour)
	}
}

func slowStart() {
	time.Sleep(time.Second)
	wellBehaved()
}

func endlessStdout() {
	for {
		fmt.Println("and another thing")
	}
}

func endlessStderr() {
	go func() {
		line := strings.Repeat("x", 200) + "\n"
		for {
			fmt.Fprint(os.Stderr, line)
		}
	}()
	wellBehaved()
}

// oldProtocol speaks a version of the contract that no host knows.
func oldProtocol() {
	set := wire.Plugins(&lawless{})[wire.ProtocolVersion]
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: map[int]plugin.PluginSet{9999: set},
		GRPCServer:       func(opts []grpc.ServerOption) *grpc.Server { return grpc.NewServer(opts...) },
	})
}

// errs is well behaved, but three of ten echoes fail; the next attempt may
// succeed.
func errs() {
	all := handlers()
	var calls atomic.Uint64
	all["chaos.echo"] = handler.Func(func(ctx context.Context, s handler.Step) (handler.Result, error) {
		if calls.Add(1)%10 < 3 {
			return handler.Result{}, handler.Retryable(0, "ECHO_LOST", "the canyon is full")
		}
		return echo(ctx, s)
	})
	sdk.Serve(sdk.Handlers("chaos", "1.1.0", all, sdk.MaxInFlight(64)))
}

// slows is well behaved, but its echo is slow.
func slows() {
	all := handlers()
	all["chaos.echo"] = handler.Func(func(ctx context.Context, s handler.Step) (handler.Result, error) {
		select {
		case <-time.After(2 * time.Second):
			return echo(ctx, s)
		case <-ctx.Done():
			return handler.Result{}, context.Cause(ctx)
		}
	})
	sdk.Serve(sdk.Handlers("chaos", "1.1.0", all, sdk.MaxInFlight(64)))
}

func refuseOptions() {
	type options struct {
		Colour string `json:"colour"`
	}
	sdk.Serve(sdk.Handlers("chaos", "1.0.0", handlers(), sdk.WithOptions(options{}, func(context.Context, options) error {
		return &sdk.OptionError{Path: "/colour", Message: "no colour is right"}
	})))
}

func failSelfTest() {
	sdk.Serve(sdk.Handlers("chaos", "1.0.0", handlers(), sdk.SelfTest(func(context.Context) error {
		return errors.New("the bank is closed")
	})))
}

func panicSelfTest() {
	sdk.Serve(sdk.Handlers("chaos", "1.0.0", handlers(), sdk.SelfTest(func(context.Context) error {
		panic("chaos: in the self-test")
	})))
}

// fork starts a child that only stays alive and holds this process's output
// open.
func fork() (pid int, err error) {
	child := exec.Command("/proc/self/exe", "grandchild")
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		return 0, fmt.Errorf("start child: %w", err)
	}
	return child.Process.Pid, nil
}

func mustFork() {
	if _, err := fork(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}
