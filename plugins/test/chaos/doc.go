// Command chaos is a plugin that misbehaves, for end-to-end tests of the host.
// It knows nothing of the host but the contract.
//
// How it starts is its mode: the text after the last "\x00chaos:" at the end of
// its own file, where chaostest.As writes it. So it works with the empty
// environment and without arguments, as hosts start plugins, and copies with
// different modes have different hashes. By hand, the first argument is the
// mode. Without a mode it starts well.
//
// What a step does is its handler, in every mode that gets so far:
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
// do without the SDK and its checks.
package main
