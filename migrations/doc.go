// Package migrations owns the schema: the numbered SQL files in sql/, forward
// and backward, and their application, with package pressly/goose. Before the
// first of them it provides pgmq: the extension, an existing installation, or our
// compatible one, in that order.
//
// A file is applied in one transaction with the record of it, under a lock that
// lets any number of hosts start at once. A released file never changes: its
// checksum is recorded and compared.
//
// Related packages are pgmqcompat (the compatible queues), pgcluster (a private
// server) and pgtest (a database for each test). This package does not know tasks
// and steps, and starts nothing that outlives a call.
package migrations
