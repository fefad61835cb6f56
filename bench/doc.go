// Command bench measures Tasker Host against its peers, River and DBOS, on one
// PostgreSQL server in one run. [docs/benchmarks.md] has the rules and the latest
// table, which `make bench-peers` writes.
//
// It is a separate module, so that the peers' dependencies do not become dependencies
// of the host. The peers run inside this process, as their users run them; the host is
// measured by `tasker bench` as shipped, with its handlers in a plugin process.
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
