//go:build !soak

package e2e_test

// rounds is how often each kind of trouble strikes.
const rounds = 2

// late is how much later than the bound work may go on: this runs beside other
// tests, on whatever machine there is, so only what is lost for good fails it.
const late = patience
