// Package tryout runs a plugin without a host and without a database: to find
// out whether it keeps the contract ([Check]), and to call it once by hand
// ([Instance.Step], [Instance.Decide], [Instance.CheckHealth],
// [Instance.Report]). The plugin may be written in any language.
//
// [Process] starts an executable as a host does: with an empty environment, over
// go-plugin's handshake and mutual TLS. [InMemory] serves Go code in the same
// process instead. Whoever starts an [Instance] closes it.
//
// The package checks what a host relies on and can see from outside. It calls a
// handler only with the examples it is given, and reports events only if asked
// to: both may have effects in the world.
package tryout
