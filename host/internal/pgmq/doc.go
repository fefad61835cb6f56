// Package pgmq accesses the queues of a database: pgmq, the extension, or an
// installation with its interface (package migrations/pgmqcompat). Nothing here
// depends on which one it is; the same tests run against both.
//
// The transport is thin. The caller owns the transaction: a message sent in it
// becomes visible with its commit, and a message read in it comes back with its
// rollback. Messages are only hints and the truth is elsewhere, so nothing here
// interprets a body.
//
// The package does not know tasks and steps, starts nothing and stores nothing.
package pgmq
