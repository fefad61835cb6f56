// Package pgmqcompat contains SQL with the interface of pgmq 1.5, for servers
// that do not offer the extension: clients written for pgmq run on it
// unchanged. We wrote it from pgmq's documented interface.
//
// Package migrations decides whether it is needed and installs it.
package pgmqcompat

import (
	_ "embed"
	"strconv"
	"strings"
)

const (
	// Interface is the version of pgmq whose interface the SQL provides.
	Interface = "1.5.1"
	// Revision grows with every change of the SQL; an installed older revision
	// is replaced in place.
	Revision = 2

	mark = "pgmq-compatible queues of Tasker Host, interface " + Interface + ", revision "
)

// SQL is the installation, to be run as one script in the schema pgmq, which
// must exist. It may be run again over an earlier revision.
//
//go:embed install.sql
var SQL string

// Mark is the comment on the schema that identifies our installation.
func Mark() string { return mark + strconv.Itoa(Revision) }

// ParseMark reads the revision from the comment on an existing schema pgmq, and
// whether it is our installation at all.
func ParseMark(comment string) (revision int, ours bool) {
	rest, ok := strings.CutPrefix(comment, mark[:strings.Index(mark, Interface)])
	if !ok {
		return 0, false
	}
	_, number, ok := strings.Cut(rest, ", revision ")
	if !ok {
		return 0, false
	}
	revision, err := strconv.Atoi(number)
	return revision, err == nil
}
