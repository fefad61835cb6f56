// Package pgtest gives each test a PostgreSQL database of its own, migrated and
// empty, in a few hundredths of a second.
//
// The server is the one of $TEST_DATABASE_URL, a superuser's URL, if that is
// set. Otherwise all test processes of a user share one private server, which
// trades durability for speed. The first process starts it. The server and its
// files are removed when no test process has used it for half a minute, no matter
// how those processes ended. It has one template database for each state of the
// migrations, which is cloned for each test.
//
// [Cluster] is a private server for a test that must crash or restart it.
//
// Tests need no preparation except an installed PostgreSQL, and run as root as well
// as under an ordinary account. A missing prerequisite fails the test.
package pgtest
