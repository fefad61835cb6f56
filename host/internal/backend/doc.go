// Package backend answers the API: it connects the reads of package store, the
// pipeline's engine, the state of the plugins and the templates' compiler to the
// interfaces that package api declares, and turns their errors into faults that a
// client may see.
//
// It knows neither HTTP nor SQL. It holds no state and starts no goroutine: the
// composition root builds it from running parts, and stops the API before them.
//
// # Errors
//
// Every error is an [api.Fault], or an internal error whose text appears only in the
// log. If the database cannot be reached the fault says unavailable, with a hint when
// to retry, for reads as well as for submissions.
package backend
