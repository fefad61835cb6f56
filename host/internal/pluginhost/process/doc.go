// Package process starts one plugin process, keeps it in a sandbox, and reliably ends it.
// It contains everything the host knows about go-plugin and Linux processes; what a
// plugin says, and when one is started, is not its concern.
//
// The sandbox, and why:
//
//   - A process group of its own, killed as a whole: a plugin's children die
//     with it, and a terminal's signals do not reach it.
//   - It dies with the host, even if the host is killed: the parent-death signal
//     is set by a [Launcher], a goroutine on a thread that lives as long as it
//     does, because the kernel ties the signal to the thread that forked.
//   - A clean environment: what [Config] names and nothing else of the host's.
//   - Standard input is /dev/null. Of standard output only the handshake reaches
//     go-plugin, whose reader stops at a long line. Standard error is logged
//     with a cap on lines and bytes per second; the excess is counted.
//   - A private directory (0700) for its socket, working directory and
//     temporary files, removed when it ends.
//   - If configured, another user's rights, without supplementary groups: the
//     private directory and the outputs belong to that user, the executable is an
//     open file, and the host's directories stay closed to it. Capabilities that
//     the host was given are never inherited.
//   - Limits on open files and core dumps, a cap on message sizes, mutual TLS.
//   - Every call into go-plugin has a deadline here, because none has one there.
//
// The owner of a [Process] calls [Process.Stop] exactly once when it is no longer needed,
// even after the process has ended on its own: that frees what go-plugin holds. Errors of
// [Launch] are of type [*StartError]. Linux only.
package process
