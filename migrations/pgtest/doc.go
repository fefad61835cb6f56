// Package pgtest gives each test a PostgreSQL database of its own, migrated and
// empty, in a few hundredths of a second.
//
// The server is the one of $TEST_DATABASE_URL, a superuser's URL, if that is
// set. Otherwise all test processes of a user share one private server, which
// gives up durability for speed. The first process starts it; it goes away with
// its files when no test process has used it for half a minute, however those
// ended. In it, one template database for each state of the migrations is
// cloned for each test.
//
// [Cluster] is a private server for a test that must crash or restart it.
//
// Tests need no preparation but an installed PostgreSQL, and run as root as well
// as under an ordinary account. A missing prerequisite fails the test.
package pgtest
