package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"

	"google.golang.org/grpc"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// reporter is of kind health. While its file exists it blocks, floods, crashes,
// or leaves its process group and stops, at every call.
type reporter struct {
	raw
	pluginv1.UnimplementedHealthServer
	how, file string
}

// Register implements the plugin.
func (r *reporter) Register(s grpc.ServiceRegistrar) {
	pluginv1.RegisterPluginServer(s, r)
	pluginv1.RegisterHealthServer(s, r)
}

func (r *reporter) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	return &pluginv1.DescribeResponse{Name: "reporter", Version: "1.0.0", Slots: []*pluginv1.Slot{
		{Kind: wire.KindHealth, Name: r.how, Abilities: []string{wire.AbilityCheck, wire.AbilityReport}},
	}}, nil
}

func (r *reporter) misbehaves() bool {
	_, err := os.Stat(r.file)
	switch {
	case err != nil:
		return false
	case r.how == "block":
		select {} // and ignores its context
	case r.how == "crash":
		os.Exit(3)
	case r.how == "leave":
		leave()
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		select {} // another thread may stop first
	}
	return r.how == "flood"
}

func (r *reporter) Check(context.Context, *pluginv1.CheckRequest) (*pluginv1.CheckResponse, error) {
	pulse := &pluginv1.CheckResult{Name: "pulse", Status: pluginv1.CheckResult_STATUS_HEALTHY}
	if !r.misbehaves() {
		return &pluginv1.CheckResponse{Results: []*pluginv1.CheckResult{pulse}}, nil
	}
	answer := &pluginv1.CheckResponse{Results: []*pluginv1.CheckResult{pulse}}
	for i := range 5000 {
		answer.Results = append(answer.Results, &pluginv1.CheckResult{
			Name: fmt.Sprint("pulse-", i), Status: pluginv1.CheckResult_STATUS_HEALTHY, Message: strings.Repeat("all is well ", 100),
		})
		fmt.Fprintln(os.Stderr, "all is well")
	}
	return answer, nil
}

func (r *reporter) Report(context.Context, *pluginv1.ReportRequest) (*pluginv1.ReportResponse, error) {
	if r.misbehaves() {
		return &pluginv1.ReportResponse{Error: strings.Repeat("no, no, ", 1<<17)}, nil
	}
	return &pluginv1.ReportResponse{}, nil
}

// leave moves the process into its parent's group.
func leave() {
	group, err := syscall.Getpgid(os.Getppid())
	if err == nil {
		err = syscall.Setpgid(0, group)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "leave the process group:", err)
		os.Exit(4)
	}
}
