// Package bench measures the engine: it applies a template of its own, runs
// tasks through it at full load and one at a time, and reads from the server
// what that cost. It drives an engine it is given, the same that serves users;
// it starts and stops nothing, and nothing in the engine knows of it.
//
// Throughput is measured over the middle of a run at full load: a first part of
// the tasks warms up plans, caches and connections and is not counted. Latency
// is measured on the idle system, one task at a time with a pause between, from
// before the submission to the news of the commit that finished the task.
package bench
