// Package migrations owns the schema: the numbered SQL files in sql/, forward
// and backward, and what puts them in place, package pressly/goose. Before the
// first of them it sees to pgmq: the extension, somebody's installation, or our
// compatible one, in that order.
//
// A file is applied in one transaction with the record of it, under a lock that
// lets any number of hosts start at once. A released file never changes: its
// checksum is kept and compared.
//
// Beside it: pgmqcompat (the compatible queues), pgcluster (a private server)
// and pgtest (a database for each test). The package knows no tasks and no
// steps, and starts nothing that outlives a call.
package migrations
