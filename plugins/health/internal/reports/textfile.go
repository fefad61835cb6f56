package reports

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
)

// TextfileOptions say where the file is.
type TextfileOptions struct {
	Path string `json:"path" doc:"the file, absolute, in the folder of node_exporter's textfile collector; it ends with .prom"`
}

// Limits on what is remembered.
const (
	maxChecks = 1000
	maxSeen   = 4096
)

// Textfile counts events, and keeps the counts and the statuses of checks in a file for
// Prometheus. It replaces the file as a whole, so a reader never sees half of one.
type Textfile struct {
	path   string
	counts map[series]int64
	checks map[string]string // the status by check
	seen   []string          // the identifiers of the latest events: one may come again
}

type series struct {
	kind     health.Kind
	severity health.Severity
}

var _ health.Reporter = (*Textfile)(nil)

// Configure takes the options.
func (f *Textfile) Configure(_ context.Context, o TextfileOptions) error {
	if !filepath.IsAbs(o.Path) || filepath.Ext(o.Path) != ".prom" {
		return &sdk.OptionError{Path: "/path", Message: "want an absolute path that ends with .prom"}
	}
	f.path, f.counts, f.checks = o.Path, map[series]int64{}, map[string]string{}
	if err := f.write(); err != nil {
		return &sdk.OptionError{Path: "/path", Message: err.Error()}
	}
	return nil
}

// Report counts the events that are new, and writes the file.
func (f *Textfile) Report(_ context.Context, events []health.Event) error {
	for _, e := range events {
		if slices.Contains(f.seen, e.ID) {
			continue
		}
		f.seen = append(f.seen, e.ID)
		f.counts[known(e)]++
		if e.Kind == health.KindCheck && e.To != "" {
			if _, there := f.checks[e.Subject]; there || len(f.checks) < maxChecks {
				f.checks[e.Subject] = e.To
			}
		}
	}
	if extra := len(f.seen) - maxSeen; extra > 0 {
		f.seen = slices.Delete(f.seen, 0, extra)
	}
	return f.write()
}

// known restricts labels to the words of the contract, because a newer host may use
// more.
func known(e health.Event) series {
	s := series{e.Kind, e.Severity}
	switch e.Kind {
	case health.KindHost, health.KindDatabase, health.KindPlugin, health.KindPool, health.KindCheck, health.KindAlert:
	default:
		s.kind = "other"
	}
	if !slices.Contains(health.Severities, e.Severity) {
		s.severity = "other"
	}
	return s
}

// write replaces the file.
func (f *Textfile) write() (err error) {
	temp, err := os.CreateTemp(filepath.Dir(f.path), ".tasker-*.tmp")
	if err != nil {
		return fmt.Errorf("write the file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write the file: %w", err), os.Remove(temp.Name()))
		}
	}()
	if _, err := temp.Write(f.text()); err != nil {
		return errors.Join(err, temp.Close())
	}
	if err := errors.Join(temp.Chmod(0o644), temp.Sync(), temp.Close()); err != nil { // others must be able to read it
		return err
	}
	return os.Rename(temp.Name(), f.path)
}

func (f *Textfile) text() []byte {
	var b bytes.Buffer
	b.WriteString("# HELP tasker_health_events_total Events of the host since the reporter started.\n# TYPE tasker_health_events_total counter\n")
	keys := slices.SortedFunc(maps.Keys(f.counts), func(a, b series) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.severity, b.severity))
	})
	for _, k := range keys {
		fmt.Fprintf(&b, "tasker_health_events_total{kind=\"%s\",severity=\"%s\"} %d\n", k.kind, k.severity, f.counts[k])
	}
	b.WriteString("# HELP tasker_health_check_status The latest status of a check.\n# TYPE tasker_health_check_status gauge\n")
	for _, check := range slices.Sorted(maps.Keys(f.checks)) {
		fmt.Fprintf(&b, "tasker_health_check_status{check=\"%s\",status=\"%s\"} 1\n", label.Replace(check), label.Replace(f.checks[check]))
	}
	return b.Bytes()
}

// label escapes a label's value as the text format asks.
var label = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
