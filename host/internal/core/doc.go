// Package core is the composition root: it builds every part of the host from the
// configuration, starts the parts in order and stops them in reverse. It is the only
// package that knows them all, and only the command imports it.
//
// Reading order: core.go names the parts and their order; each file beside it makes one
// part out of configuration values.
//
//	traces     the tracer, if a collector is configured
//	database   the server of the configured URL, or a private one; the schema
//	store      the connections; the parts that use them are built here
//	api        HTTP over the unix socket
//	engine     plugins as processes, and the pipeline that moves work to them
//
// Stopping: the host first announces that it is draining, then takes no more work and
// lets running steps finish. What is left at the end of the drain time is cancelled and
// its leases are given back. Then the plugins, the API and the database stop.
package core
