// Package reports holds the reporters of the health plugins that come with the
// host: one that posts events to an address, and one that keeps a file for
// Prometheus. They are configured once, before the first report; nothing is
// started.
package reports
