// Package e2e holds tests only: the whole system as its users and its troubles
// meet it. Real processes of the host and of plugins, built once per test
// binary, work on real PostgreSQL servers, which are stopped, starved and
// crashed; processes are killed. The tests know the host by its command line,
// its HTTP API and its tables, not by its packages.
//
// Reading order: bed_test.go builds and starts processes; oracle_test.go says
// whether what they left behind is right, by invariants I1 to I12, from the
// database, the submitter's records and a ledger that the steps keep outside
// the system; mutants_test.go shows that the oracle sees a violation of each;
// chaos_test.go runs the faults. The others are stories of their own.
package e2e
