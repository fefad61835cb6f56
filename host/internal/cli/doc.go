// Package cli is the tasker command. Commands about tasks, templates and
// plugins are clients of a host's API; commands that need the core itself (up,
// migrate, bench, demo, the offline part of doctor) are functions in Runtime,
// which main wires, so that this package does not know the core.
//
// For people it prints tables, colours on a terminal unless NO_COLOR is set,
// and progress bars; with --json it prints what the API returns, under the same
// names. Numbers in results keep every digit. An error is one text on standard
// error that says what to do.
//
// Exit codes are part of the interface:
//
//	0    success; when watching: every task is complete
//	1    failure
//	2    the command line is invalid
//	3    a watched task ended in a state other than complete
//	4    the named object does not exist
//	5    no host answers
//	6    the current state does not allow it, such as a retry of a step that has not failed
//	7    the host requires a token, or refused the one given
//	8    the token lacks the permission
//	9    the host stopped, but cancelled steps that were still running
//	10   some lines of a bulk submission were refused
//	130  interrupted
package cli
