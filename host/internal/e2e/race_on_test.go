//go:build race

package e2e_test

const (
	// raced says that the tests run under the race detector; hosts do then, too.
	raced = true

	// slower is how many times longer everything is given then.
	slower = 2
)
