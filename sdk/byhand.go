package sdk

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// byHand is what the binary does when a person starts it. It returns the exit
// code.
func byHand(p *Plugin, args []string, stdout, stderr io.Writer) int {
	command := strings.Join(args[1:], " ")
	description, err := p.Describe(context.Background(), &pluginv1.DescribeRequest{})
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	switch command {
	case "describe":
		fmt.Fprintln(stdout, protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Format(description))
		return 0
	case "selftest":
		return selfTestByHand(p, stdout, stderr)
	case "--version", "-version", "version":
		fmt.Fprintln(stdout, description.GetName(), description.GetVersion())
		return 0
	case "--help", "-help", "-h", "help":
		explain(args[0], description, stdout)
		return 0
	case "":
	default:
		fmt.Fprintf(stderr, "%q is not one of its commands.\n\n", command)
	}
	explain(args[0], description, stderr)
	return 1
}

func selfTestByHand(p *Plugin, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	answer, err := p.SelfTest(ctx, &pluginv1.SelfTestRequest{})
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "self-test:", err)
		return 1
	case !answer.GetOk():
		fmt.Fprintln(stderr, "self-test failed:", answer.GetMessage())
		return 1
	}
	fmt.Fprintln(stdout, strings.TrimSpace("ok "+answer.GetMessage()))
	return 0
}

// explain prints what the binary is and how to use it by hand.
func explain(path string, d *pluginv1.DescribeResponse, w io.Writer) {
	fmt.Fprintf(w, "%s %s is a Tasker plugin: a host starts it, see plugins.toml.\n\nIt serves:\n", d.GetName(), d.GetVersion())
	for _, s := range d.GetSlots() {
		fmt.Fprintf(w, "  %-8s %s\n", s.GetKind(), s.GetName())
	}
	fmt.Fprintf(w, "\nBy hand:\n")
	binary := filepath.Base(path)
	for _, c := range [][2]string{
		{binary + " describe", "print what it is, as JSON"},
		{binary + " selftest", "run its self-test"},
		{binary + " --version", "print its name and version"},
		{binary + " --help", "print this"},
		{"tasker plugin check " + path, "check that it keeps the contract with its host"},
		{"tasker plugin run " + path, "call it once"},
	} {
		fmt.Fprintf(w, "  %s\n        %s\n", c[0], c[1])
	}
}
