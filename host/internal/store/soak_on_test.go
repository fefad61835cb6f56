//go:build soak

package store_test

import "time"

const (
	retainedTasks     = 180_000 // two million rows with the day of a quarter of it
	retentionBaseline = 10 * time.Second
)
