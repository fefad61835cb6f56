// Package pluginset determines which binary of which plugin should run in an
// environment: it reads plugins.toml and plugins.lock, checks the files they
// name, and reports for each slot which file is there and whether it may run.
//
// [Selector.Select] is for a host. A problem with a file as a whole, such as a
// syntax error, is returned as a [*config.Error]; a problem with one plugin's
// binary is recorded in its slot and does not affect the others. The checksum of
// a slot is that of the bytes that were checked: whoever runs the binary
// compares it with the copy that is executed, so nothing can be swapped in
// between.
//
// [Lock], [Sign], [Verify], [Keygen] and [Compare] are the commands of the same
// names. They need no running host.
//
// The package starts no plugins and knows nothing about those that run.
package pluginset
