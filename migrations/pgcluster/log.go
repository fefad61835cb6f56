package pgcluster

import (
	"bytes"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// maxLine bounds how much is kept of one message of the server, in bytes.
const maxLine = 8 << 10

// serverLog turns the server's stderr into records of our log, and keeps the
// latest lines for the error of a failed start.
type serverLog struct {
	log hclog.Logger

	mu     sync.Mutex
	rest   []byte
	recent []string
}

func (s *serverLog) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = append(s.rest, p...)
	for {
		i := bytes.IndexByte(s.rest, '\n')
		if i < 0 && len(s.rest) < maxLine {
			return len(p), nil
		}
		if i < 0 || i > maxLine {
			i = maxLine - 1
		}
		s.line(strings.TrimRight(string(s.rest[:i]), "\r\n"))
		s.rest = s.rest[i+1:]
	}
}

// line logs one line at the level that it has for an operator of the host. What
// was wrong with a statement (ERROR) or a connection (FATAL) is for its client to
// report, and the reason why a server stopped is in tail.
func (s *serverLog) line(line string) {
	const kept = 20
	if s.recent = append(s.recent, line); len(s.recent) > kept {
		s.recent = s.recent[1:]
	}
	severity, message, ok := strings.Cut(line, ":  ")
	if !ok {
		s.log.Debug(line)
		return
	}
	switch severity {
	case "PANIC":
		s.log.Error(message, "severity", severity)
	case "WARNING":
		s.log.Warn(message, "severity", severity)
	default:
		s.log.Debug(message, "severity", severity)
	}
}

// tail returns the latest lines.
func (s *serverLog) tail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.recent, "\n")
}
