// Package bench measures the engine: it applies its own templates, runs tasks
// in the ways that [Workloads] lists, and reads the cost from the server and the
// operating system. The caller provides the engines, which are those that serve
// users. The package does not start or stop them, and the engine does not know
// about it.
//
// Throughput is measured at full load, several times in a row; the medians count.
// The first part of the tasks warms up plans, caches and connections and is not
// counted. Latency is measured on the idle system, one task at a time with a
// pause between, from before the submission until the commit that ended the task
// is known; or at a share of the maximum load, from the time at which the task was
// due to be submitted, even if the submitter was late.
package bench
