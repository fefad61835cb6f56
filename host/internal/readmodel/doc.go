// Package readmodel holds the plain structs that the HTTP API serves and the
// command line shows. They are the product's public shape: the JSON names are
// stable, times are RFC 3339 in UTC, identifiers are UUID strings, and JSON
// that belongs to the user (contexts, results, metadata) is kept as raw bytes,
// so that every digit survives.
//
// It is a leaf: it knows only the vocabulary of states, and neither where the values
// come from nor how they are shown. The struct tags doc, enum and format feed the
// OpenAPI description.
package readmodel
