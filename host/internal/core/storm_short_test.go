//go:build !soak

package core

// stormSwaps is the number of swaps; with the tag soak there are more.
const stormSwaps = 12
