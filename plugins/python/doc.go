// Package python holds a handler plugin in Python, in the folder greeter, and
// the test that it keeps the contract: what docs/plugins-in-other-languages.md
// explains is what it does.
package python
