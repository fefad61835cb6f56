// Package pluginset answers which binary of which plugin shall run in an
// environment: it reads plugins.toml and plugins.lock, looks at the files they
// name, and says for each slot what is there and whether it may run.
//
// [Selector.Select] is for a host. What is wrong with a file as a whole, such as
// a syntax error, is its error, a [*config.Error]; what is wrong with one
// plugin's binary stands at its slot, and the others are none the worse. The
// checksum of a slot is that of the bytes that were checked: whoever runs the
// binary compares it again with the copy that it executes, so nothing can be
// exchanged in between.
//
// [Lock], [Sign], [Verify], [Keygen] and [Compare] are what the commands of the
// same names do. They need no running host.
//
// The package starts no plugin and knows nothing of those that run.
package pluginset
