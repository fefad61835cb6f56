// Command bench measures Tasker Host against its peers, River and DBOS, on one
// PostgreSQL server in one run: [docs/benchmarks.md] has the rules and the last
// table, `make bench-peers` makes it.
//
// It is a module of its own, so that what the peers depend on does not become a
// dependency of the host. The peers run inside of this process, as their users
// run them; the host is the program `tasker bench` as it is shipped, with its
// handlers in a plugin process.
//
//	main.go       flags, rounds, turns
//	contender.go  who takes part, in which settings
//	server.go     the PostgreSQL server, a database for each turn, what it used
//	load.go       full load and latency, the same for all peers
//	tasker.go, river.go, riverbench.go, dbos.go
//	              the contenders
//	report.go     medians, ratios, the table, and where it is written
//
// [docs/benchmarks.md]: ../docs/benchmarks.md
package main
