// Package backend answers the API: it puts the reads of package store, the
// pipeline's engine, the state of the plugins and the templates' compiler behind
// the interfaces that package api declares, and turns their errors into faults
// that a client may see.
//
// It knows neither HTTP nor SQL. It holds no state and starts no goroutine: the
// composition root makes it of parts that run, and stops the API before them.
//
// # Errors
//
// Whatever a method returns is an [api.Fault], or an internal error whose text
// only the log sees. A database that cannot be reached is unavailable, with a
// hint when to come again; this holds for reads as well as for submissions.
package backend
