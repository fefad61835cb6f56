// Package pgmq speaks to the queues of a database: pgmq, the extension, or an
// installation with its interface (package migrations/pgmqcompat). Nothing here
// depends on which one it is; one suite of tests holds for both.
//
// The transport is thin. The caller owns the transaction: a message sent in it
// becomes visible with its commit, a message read in it comes back with its
// rollback. Messages are hints, the truth is elsewhere: nothing here interprets
// a body.
//
// The package knows no tasks and no steps, starts nothing and keeps nothing.
package pgmq
