// Package vocab is the vocabulary that the host, the SDK and plugins share: the states of tasks
// and steps, the legal transitions between them, the types of errors that a step can end with,
// and the identifiers of steps. It is the leaf of the import graph: it imports only the
// standard library.
//
// The words are those of the reference system. The migrations define the same states and edges
// as enum types and check constraints; a test compares the two, so that Go, SQL and the
// documentation cannot drift apart.
package vocab
