// Command crooked is a plugin of all three kinds that breaks the contract in one
// way: the fault, which is the first argument by hand, or the text behind the
// last dash of its own name when a host starts it. It is what the checks of
// sdk/tryout are tested with: each fault must be found, and named in the right
// words. Without a fault it is a plugin without the SDK that keeps the contract.
package main
