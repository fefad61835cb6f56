// Package checks holds the checks of the health plugins that come with the
// host: how much space file systems have, and whether addresses answer. They
// are configured once, before the first check; nothing is started.
package checks
