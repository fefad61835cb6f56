// Package python holds a handler plugin in Python, in the folder greeter, and
// the test that it keeps the contract. It does what
// docs/plugins-in-other-languages.md explains.
package python
