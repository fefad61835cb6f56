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
//	0    it worked; for watching: every task is complete
//	1    it did not
//	2    the command line is wrong
//	3    a watched task ended otherwise than complete
//	4    what was named does not exist
//	5    no host answers
//	6    the state of things forbids it, such as a retry of what has not failed
//	7    the host asks for a token, or refuses the one it was shown
//	8    the token lacks the permission
//	9    a host has stopped, but cut off steps that still ran
//	10   lines of a bulk submission were refused
//	130  interrupted
package cli
