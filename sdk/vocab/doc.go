// Package vocab is the vocabulary that the host, the SDK and plugins share:
// the states of tasks and steps, the legal edges between them, the classes of
// errors a step can end with, and the identifiers that name a step. It is the
// leaf of the import graph: it knows nothing of ours and only the standard
// library.
//
// The words are those of the reference system. The same states and edges exist
// as enum types and check constraints in migrations; a test compares the two,
// so that Go, SQL and the documentation cannot drift apart.
package vocab
