//go:build !race

package e2e_test

// raced says that the tests run under the race detector; the host does then, too.
const raced = false
