// Package bench measures the engine: it applies templates of its own, runs tasks
// through it in the ways that [Workloads] names, and reads from the server and
// the operating system what that cost. It drives engines it is given, the same
// that serve users; it starts and stops none, and nothing in the engine knows of
// it.
//
// Throughput is measured at full load, several times in a row; the medians count.
// A first part of the tasks warms up plans, caches and connections and is not
// counted. Latency is measured on the idle system, one task at a time with a
// pause between, from before the submission to the news of the commit that
// finished the task; or at a share of the maximum load, from the moment at which
// the task was due to be submitted, whatever held the submitter up.
package bench
