//go:build soak

package core

// stormSwaps is how many swaps the storm has.
const stormSwaps = 5000
