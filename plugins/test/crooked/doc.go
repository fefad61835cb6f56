// Command crooked is a plugin of all three kinds that breaks the contract in one
// way: the fault, which is the first argument when started by hand, or the text
// after the last dash of its own name when a host starts it. It tests the checks
// of sdk/tryout: each fault must be found, and described correctly. Without a
// fault it is a plugin without the SDK that keeps the contract.
package main
