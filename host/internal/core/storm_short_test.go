//go:build !soak

package core

// stormSwaps is how many swaps the storm has; with the tag soak there are more.
const stormSwaps = 12
