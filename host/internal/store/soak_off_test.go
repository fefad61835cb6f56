//go:build !soak

package store_test

import "time"

// How much TestRetentionUnderLoad removes, and how long it looks at the load
// alone before. Make soak runs it with more.
const (
	retainedTasks     = 4000
	retentionBaseline = 300 * time.Millisecond
)
