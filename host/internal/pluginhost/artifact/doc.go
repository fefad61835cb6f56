// Package artifact takes in a plugin's executable: it checks the file, hashes it while
// copying it into a private store, and hands out the copy. What was hashed is what runs:
// nobody else can write to the store, and the file the operator named is read once and
// never executed.
//
// The store is a directory of mode 0700 that holds files of mode 0500, each named by the
// SHA-256 of its bytes. It survives restarts, may be shared by hosts of the same user,
// and every file in it can be recreated: [Store.Prune] removes what no host has used for
// a while.
//
// The package starts nothing and knows nothing about plugins except that they are
// executables. Its errors are of type [*Error] and say what to do.
package artifact
