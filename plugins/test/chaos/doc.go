// Command chaos is a plugin that misbehaves, for end-to-end tests of the host.
// It knows nothing about the host except the contract.
//
// How it starts is its mode: the text after the last "\x00chaos:" at the end of
// its own file, where chaostest.As writes it. So it works with an empty
// environment and without arguments, as when a host starts it, and copies with
// different modes have different hashes. When started by hand, the first
// argument is the mode. Without a mode it starts normally.
//
// What a step does depends on its handler, in every mode that gets that far:
//
//	chaos.echo     returns the task's input
//	chaos.sleep    waits {"ms": n}, unless cancelled
//	chaos.hang     never returns, cancelled or not
//	chaos.crash    ends the process: {"how": "exit" | "kill" | "segv" | "fatal"}
//	chaos.panic    panics
//	chaos.invalid  returns what is not JSON
//	chaos.big      returns {"bytes": n}, 50 MiB if not given
//	chaos.flood    prints {"lines": n} of {"bytes": n}, to stdout or stderr
//	chaos.env      returns its environment, arguments, directory and open files
//	chaos.fork     starts a child that outlives it and holds its output open
//
// The modes are the keys of the table in main.go. Those that begin with lawless
// do not use the SDK and its checks.
package main
