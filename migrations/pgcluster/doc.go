// Package pgcluster runs a private PostgreSQL: the database of a host that was
// given no URL, and the server that tests use.
//
// A cluster lives in one state directory and is reached only through a Unix
// socket, so it does not disturb any other PostgreSQL on the machine:
//
//	<dir>/lock    held (flock) by the process that manages the cluster
//	<dir>/data    the data directory
//	<dir>/run     the socket; in the temporary directory if <dir> is too long a
//	              path for a socket
//
// PostgreSQL refuses to run as root. A root process therefore gives the state
// directory to an ordinary account and starts the server under it.
//
// The server is a child of the process that started it: its messages go to the
// log, and its exit is reported by [Cluster.Exited]. If that process is killed, the
// server lives on, and the next Start takes it over.
//
// The package does not know schemas, pools or configuration files. Whoever
// calls [Start] calls [Cluster.Stop].
package pgcluster
