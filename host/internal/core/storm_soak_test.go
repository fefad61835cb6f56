//go:build soak

package core

// stormSwaps is the number of swaps.
const stormSwaps = 5000
