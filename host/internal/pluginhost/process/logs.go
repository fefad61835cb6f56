package process

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
)

const (
	maxLogLine = 8 << 10 // bytes kept of a line
	tailBytes  = 4 << 10 // of standard error, for error messages
	// How often dropped lines are reported.
	dropNotice = 5 * time.Second
)

// LogLimits limits what a plugin may log.
type LogLimits struct {
	LinesPerSecond int // default 2000
	BytesPerSecond int // default 1 MiB
}

func (l LogLimits) withDefaults() LogLimits {
	if l.LinesPerSecond <= 0 {
		l.LinesPerSecond = 2000
	}
	if l.BytesPerSecond <= 0 {
		l.BytesPerSecond = 1 << 20
	}
	return l
}

// logSink turns a plugin's output into log lines of the host. It never makes the plugin
// wait: what exceeds the limits is counted and dropped.
type logSink struct {
	log     hclog.Logger
	limits  LogLimits
	dropped func(lines int)

	mu        sync.Mutex // guards the fields below
	tail      []byte     // the end of standard error
	lines     float64    // tokens left
	bytes     float64
	refilled  time.Time
	unsaid    int // dropped since the last notice
	noticed   time.Time
	panicking bool
}

func newLogSink(log hclog.Logger, limits LogLimits, dropped func(int)) *logSink {
	if dropped == nil {
		dropped = func(int) {}
	}
	limits = limits.withDefaults()
	return &logSink{
		log: log, limits: limits, dropped: dropped,
		lines: float64(limits.LinesPerSecond), bytes: float64(limits.BytesPerSecond), refilled: time.Now(),
	}
}

// stream returns a writer for one of the plugin's outputs; keepTail is set for standard
// error.
func (s *logSink) stream(name string, keepTail bool) *logStream {
	return &logStream{sink: s, name: name, keepTail: keepTail}
}

// stderrTail returns the end of standard error.
func (s *logSink) stderrTail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return printable(s.tail[max(0, len(s.tail)-tailBytes):])
}

// printable makes a plugin's output safe to show: valid UTF-8 without control characters,
// which could manipulate a terminal.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return utf8.RuneError
		}
		return r
	}, string(b))
}

// line logs one line, if the limits allow.
func (s *logSink) line(stream string, line []byte, keepTail bool) {
	if len(line) == 0 {
		return
	}
	s.mu.Lock()
	if keepTail {
		s.keep(line)
	}
	if !s.take(len(line)) {
		s.unsaid++
		s.mu.Unlock()
		s.dropped(1)
		return
	}
	unsaid := s.notice()
	if bytes.HasPrefix(line, []byte("panic: ")) || bytes.HasPrefix(line, []byte("fatal error: ")) {
		s.panicking = true
	}
	panicking := s.panicking
	s.mu.Unlock()

	if unsaid > 0 {
		s.log.Warn("plugin logs too much: lines dropped", "lines", unsaid, "lines_per_second", s.limits.LinesPerSecond, "bytes_per_second", s.limits.BytesPerSecond)
	}
	s.emit(stream, line, panicking)
}

// keep appends to the tail. The caller holds mu.
func (s *logSink) keep(line []byte) {
	if len(s.tail)+len(line) >= 2*tailBytes {
		n := copy(s.tail, s.tail[max(0, len(s.tail)-tailBytes):])
		s.tail = s.tail[:n]
	}
	s.tail = append(append(s.tail, line[:min(len(line), tailBytes)]...), '\n')
}

// take spends one line of n bytes. The caller holds mu.
func (s *logSink) take(n int) bool {
	now := time.Now()
	passed := now.Sub(s.refilled).Seconds()
	s.refilled = now
	s.lines = min(s.lines+passed*float64(s.limits.LinesPerSecond), float64(s.limits.LinesPerSecond))
	s.bytes = min(s.bytes+passed*float64(s.limits.BytesPerSecond), float64(s.limits.BytesPerSecond))
	if s.lines < 1 || s.bytes < float64(n) {
		return false
	}
	s.lines--
	s.bytes -= float64(n)
	return true
}

// notice returns how many dropped lines to report now. The caller holds mu.
func (s *logSink) notice() int {
	if s.unsaid == 0 || time.Since(s.noticed) < dropNotice {
		return 0
	}
	n := s.unsaid
	s.unsaid, s.noticed = 0, time.Now()
	return n
}

// emit writes the line to the host's log: hclog's JSON with its own level and
// keys, anything else as text.
func (s *logSink) emit(stream string, line []byte, panicking bool) {
	if line[0] == '{' && s.emitJSON(line) {
		return
	}
	text := printable(line)
	level := hclog.Debug
	if end := strings.IndexByte(text, ']'); end > 1 && text[0] == '[' {
		if l := hclog.LevelFromString(text[1:end]); l != hclog.NoLevel {
			level, text = l, strings.TrimSpace(text[end+1:])
		}
	}
	if panicking {
		level = hclog.Error
	}
	s.log.Log(level, text, "stream", stream)
}

func (s *logSink) emitJSON(line []byte) bool {
	var entry map[string]any
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if d.Decode(&entry) != nil {
		return false
	}
	message, ok := entry["@message"].(string)
	if !ok {
		return false
	}
	name, _ := entry["@level"].(string)
	level := hclog.LevelFromString(name)
	if level == hclog.NoLevel {
		level = hclog.Info
	}
	args := make([]any, 0, 2*len(entry))
	for _, key := range slices.Sorted(maps.Keys(entry)) {
		if !strings.HasPrefix(key, "@") {
			args = append(args, s.key(key), clean(entry[key]))
		}
	}
	s.log.Log(level, strings.ReplaceAll(printable([]byte(message)), "\n", `\n`), args...)
	return true
}

// key returns the form of a plugin's key in the log: one word, and none of the host's,
// which identify the line's origin.
func (s *logSink) key(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return '_'
	}, name)
	implied := s.log.ImpliedArgs() // keys and values alternate
	for i := 0; i < len(implied); i += 2 {
		if implied[i] == name {
			return "own_" + name
		}
	}
	return name
}

// clean makes the values that a plugin logs with its message printable.
func clean(value any) any {
	switch v := value.(type) {
	case string:
		return printable([]byte(v))
	case []any:
		for i := range v {
			v[i] = clean(v[i])
		}
	case map[string]any:
		all := make(map[string]any, len(v))
		for key, inner := range v {
			all[printable([]byte(key))] = clean(inner)
		}
		return all
	}
	return value
}

// logStream splits one output into lines.
type logStream struct {
	sink     *logSink
	name     string
	keepTail bool
	partial  []byte // of an incomplete line; used only by Write
}

var _ io.Writer = (*logStream)(nil)

// Write logs the complete lines in p and keeps the rest for the next call. It supports
// one writer at a time.
func (w *logStream) Write(p []byte) (int, error) {
	n := len(p)
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			w.partial = append(w.partial, p[:min(len(p), maxLogLine-len(w.partial))]...)
			return n, nil
		}
		line := p[:end]
		if len(w.partial) > 0 {
			line = append(w.partial, line[:min(len(line), maxLogLine-len(w.partial))]...)
		}
		w.sink.line(w.name, trimLine(line), w.keepTail)
		w.partial, p = w.partial[:0], p[end+1:]
	}
}

// readFrom logs what it reads from r until the end. A line longer than the buffer is cut,
// and the rest of it skipped.
func (w *logStream) readFrom(r *bufio.Reader) {
	cut := false
	for {
		line, err := r.ReadSlice('\n')
		if !cut {
			w.sink.line(w.name, trimLine(line), w.keepTail)
		}
		if cut = errors.Is(err, bufio.ErrBufferFull); err != nil && !cut {
			return
		}
	}
}

func trimLine(line []byte) []byte {
	line = bytes.TrimRight(line, "\r\n")
	return line[:min(len(line), maxLogLine)]
}
