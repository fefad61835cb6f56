package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

const marker = "\x00chaos:"

func main() {
	modes := map[string]func(){
		"": wellBehaved,

		// Before the handshake.
		"garbage":         func() { fmt.Println("Welcome to chaos!"); wellBehaved() },
		"garbage-only":    func() { fmt.Println("1|1|unix|"); hang() },
		"long-line":       func() { fmt.Println(strings.Repeat("x", 70<<10)); wellBehaved() },
		"endless-stdout":  endlessStdout,
		"exit":            func() { fmt.Fprintln(os.Stderr, "chaos: the licence has run out"); os.Exit(3) },
		"exit-zero":       func() { os.Exit(0) },
		"panic-start":     func() { panic("chaos: no reason to live") },
		"hang-start":      hang,
		"slow-start":      slowStart,
		"old-core":        func() { fmt.Println("2|1|unix|/nowhere|grpc|"); hang() },
		"old-protocol":    oldProtocol,
		"net-rpc":         func() { fmt.Println("1|1|unix|/nowhere|netrpc|"); hang() },
		"dead-socket":     func() { fmt.Println("1|1|unix|/nowhere/chaos.sock|grpc|"); hang() },
		"fork-start":      func() { mustFork(); wellBehaved() },
		"bad-log":         func() { fmt.Fprintln(os.Stderr, `{"@message": 1, "@level": [], "@timestamp": {}}`); wellBehaved() },
		"endless-stderr":  endlessStderr,
		"unterminated":    func() { fmt.Print("1|1|unix|/nowhere|grpc"); hang() },
		"grandchild":      hang, // what fork starts
		"refuse-options":  refuseOptions,
		"fail-self-test":  failSelfTest,
		"panic-self-test": panicSelfTest,
		"errs":            errs,
		"slows":           slows,

		// After it, without the SDK.
		"lawless":                func() { serveLawless(&lawless{}) },
		"lawless-hang-describe":  func() { serveLawless(&lawless{hang: "Describe"}) },
		"lawless-crash-describe": func() { serveLawless(&lawless{crash: "Describe"}) },
		"lawless-nameless":       func() { serveLawless(&lawless{nameless: true}) },
		"lawless-big-describe":   func() { serveLawless(&lawless{big: "Describe"}) },
		"lawless-hang-configure": func() { serveLawless(&lawless{hang: "Configure"}) },
		"lawless-hang-self-test": func() { serveLawless(&lawless{hang: "SelfTest"}) },
		"lawless-hang-health":    func() { serveLawless(&lawless{hang: "Health"}) },
		"lawless-unhealthy":      func() { serveLawless(&lawless{unhealthy: true}) },
		"lawless-hang-drain":     func() { serveLawless(&lawless{hang: "Drain"}) },
		"lawless-big-collect":    func() { serveLawless(&lawless{big: "Collect"}) },
	}
	mode := ownMode()
	start, ok := modes[mode]
	if !ok {
		fmt.Fprintf(os.Stderr, "chaos: no mode %q; there are %s\n", mode, slices.Sorted(maps.Keys(modes)))
		os.Exit(1)
	}
	start()
}

// ownMode reads the mode from the arguments or the end of this file.
func ownMode() string {
	if len(os.Args) > 1 && os.Args[1] != "describe" && os.Args[1] != "selftest" {
		return os.Args[1]
	}
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos: read own file:", err)
		os.Exit(1)
	}
	tail := own[max(0, len(own)-128):]
	if i := bytes.LastIndex(tail, []byte(marker)); i >= 0 {
		return string(tail[i+len(marker):])
	}
	return ""
}
