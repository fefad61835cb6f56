// Package archtest holds tests only: the architecture rules that a compiler
// does not check. Which package may import which, one package comment per package,
// sizes of files, functions and interfaces, and words that must not appear in
// SQL. A rule that has to yield names the place and the reason in its allow-list,
// and an entry that is no longer needed fails too.
package archtest
