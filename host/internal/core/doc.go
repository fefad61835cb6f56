// Package core is the composition root: it builds every part of the host from
// the configuration, starts the parts in order and stops them in reverse. It is
// the only package that knows them all, and nobody imports it but the command.
//
// Reading order: core.go names the parts and their order; each file beside it
// makes one part out of configuration values.
//
//	traces     the tracer, if a collector is configured
//	database   the server of the configured URL, or a private one; the schema
//	store      the connections; the parts that work on them are made here
//	api        HTTP over the unix socket
//	engine     plugins as processes, and the pipeline that moves work to them
//
// Stopping: the host first says that it drains, then takes no more work and lets
// what runs finish; what is left at the end of the drain time is cancelled and
// its leases are handed back; then plugins, API and database go.
package core
