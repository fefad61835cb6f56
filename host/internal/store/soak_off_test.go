//go:build !soak

package store_test

import "time"

// How much TestRetentionUnderLoad removes, and how long it measures the load alone first.
// Make soak runs it with more.
const (
	retainedTasks     = 4000
	retentionBaseline = 300 * time.Millisecond
)
