package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// report is the record of a run.
type report struct {
	rows    []*row
	setting setting
	busy    string // the load of the machine before the run
	at      time.Time
}

// median returns the median of a figure over all rounds, its minimum and maximum.
func (r *row) median(figure func(result) float64) (median, least, most float64) {
	all := make([]float64, len(r.results))
	for i, v := range r.results {
		all[i] = figure(v)
	}
	slices.Sort(all)
	return middle(all), all[0], all[len(all)-1]
}

func middle(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func rate(r result) float64 { return r.stepsPerSecond }
func p50(r result) float64  { return r.p50 }
func p99(r result) float64  { return r.p99 }

// against is the median of the ratios of two rows, round by round, since whatever slows
// a round down slows both.
func (r *row) against(o *row, figure func(result) float64) float64 {
	var all []float64
	for i := range r.results {
		if a, b := figure(r.results[i]), figure(o.results[i]); a > 0 && b > 0 {
			all = append(all, a/b)
		}
	}
	if len(all) == 0 {
		return math.NaN()
	}
	slices.Sort(all)
	return middle(all)
}

// markdown returns the section of the page.
func (r report) markdown() string {
	var b strings.Builder
	d := r.setting.Database
	fmt.Fprintf(&b, "### %s: peers\n\n", r.at.Format("2 January 2006"))
	fmt.Fprintf(&b, "%d × %s, %.0f GiB, load %s at the start; %s, %s; PostgreSQL %s on the same machine\n"+
		"(fsync %s, synchronous_commit %s, full_page_writes %s, shared_buffers %s); River %s, DBOS %s.\n"+
		"Rounds: %d; medians, with minimum and maximum in brackets.\n",
		r.setting.CPUs, strings.Join(strings.Fields(r.setting.CPU), " "), float64(r.setting.MemoryBytes)/(1<<30), r.busy, r.setting.System, r.setting.Go,
		firstWord(d["server_version"]), d["fsync"], d["synchronous_commit"], d["full_page_writes"], d["shared_buffers"],
		version("github.com/riverqueue/river"), version("github.com/dbos-inc/dbos-transact-golang"), len(r.rows[0].results))
	for _, sh := range []shape{chain, single} {
		r.table(&b, sh)
	}
	b.WriteString("\n")
	for i, c := range r.rows {
		if !slices.ContainsFunc(r.rows[:i], func(o *row) bool { return o.how == c.how }) {
			fmt.Fprintf(&b, "- %s, %s: %s\n", c.name, c.setting, c.how)
		}
	}
	return b.String()
}

func (r report) table(b *strings.Builder, sh shape) {
	var rows []*row
	for _, row := range r.rows {
		if row.shape == sh {
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return
	}
	host := rows[0]
	fmt.Fprintf(b, "\n%s:\n\n", sh.title)
	fmt.Fprintf(b, "| | setting | %ss/s | host / this | idle p50 / p99 (ms) | this / host | WAL bytes | CPU µs |\n|---|---|---|---|---|---|---|---|\n", sh.unit)
	for _, row := range rows {
		m, least, most := row.median(rate)
		fmt.Fprintf(b, "| %s | %s | %s (%s to %s) | %s |", row.name, row.setting, thousands(m), thousands(least), thousands(most), ratio(host.against(row, rate)))
		if row.results[0].samples > 0 {
			half, _, _ := row.median(p50)
			high, _, _ := row.median(p99)
			fmt.Fprintf(b, " %.1f / %.1f | %s |", half, high, ratio(row.against(host, p50)))
		} else {
			b.WriteString(" – | – |")
		}
		wal, _, _ := row.median(func(r result) float64 { return r.walPerStep })
		cpu, _, _ := row.median(func(r result) float64 { return r.cpuPerStep })
		fmt.Fprintf(b, " %s | %s |\n", known(wal), known(cpu))
	}
}

// firstWord leaves out what distributions append to a version.
func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}

// ratio shows two significant digits.
func ratio(v float64) string {
	digits := 0
	switch {
	case math.IsNaN(v):
		return "–"
	case v < 0.995:
		digits = 2
	case v < 9.95:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

func known(v float64) string {
	if v == 0 {
		return "–"
	}
	return thousands(v)
}

// thousands writes a whole number with commas.
func thousands(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// version returns the version of a module that is built in.
func version(module string) string {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, m := range info.Deps {
			if m.Path == module {
				return m.Version
			}
		}
	}
	return "of unknown version"
}

// loadAverage is the load of the last minute.
func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(raw), " ")
	return first
}

// The markers around the table on the page.
const (
	pageBegin = "<!-- peers: written by make bench-peers -->\n"
	pageEnd   = "<!-- end of peers -->\n"
)

// checkPage reports why a page cannot be written.
func checkPage(path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	if _, err = replaceBetween(page, ""); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writePage(path, table string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	page, err = replaceBetween(page, table)
	if err == nil {
		err = os.WriteFile(path, page, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// replaceBetween puts a text between the markers of a page.
func replaceBetween(page []byte, text string) ([]byte, error) {
	head, rest, begins := bytes.Cut(page, []byte(pageBegin))
	_, tail, ends := bytes.Cut(rest, []byte(pageEnd))
	if !begins || !ends {
		return nil, fmt.Errorf("the page has no markers for the table: want %q and %q", pageBegin, pageEnd)
	}
	return slices.Concat(head, []byte(pageBegin), []byte("\n"+text+"\n"), []byte(pageEnd), tail), nil
}
