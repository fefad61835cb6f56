// Package task defines what a host says about a task over its HTTP API: the task, its steps,
// its history, its snapshots, and the problem that answers a failed request. The JSON names are
// stable, times are RFC 3339 in UTC, identifiers are UUID strings, and JSON that belongs to the
// user (contexts, results, metadata) is kept as raw bytes, so that every digit survives.
//
// It is a leaf beside package vocab: it knows neither where the values come from nor how they
// are shown. The struct tags doc, enum and format feed the OpenAPI description of the API.
package task
