//go:build soak

package e2e_test

// rounds is how often each kind of trouble strikes.
const rounds = 20

// late is how much later than the bound work may go on: this runs alone.
const late = 0
