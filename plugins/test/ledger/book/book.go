// Package book is the ledger outside the system: the ledger plugin writes to it while
// its steps run, and a test reads it back and compares it with the database. A book
// is a directory; any number of processes may write to it at once, and what a process
// writes while it is killed does not damage the entries of others. The package knows
// nothing about the host.
package book

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Event is what an entry records.
type Event string

// The events of an attempt, in the order in which they happen.
const (
	Started  Event = "started"  // the handler was called
	Accepted Event = "accepted" // the sink accepted the effect, the first one of its key
	Ignored  Event = "ignored"  // the sink already had an effect of this key
	Returned Event = "returned" // the handler is about to answer
)

// Entry is one line of the log.
type Entry struct {
	Event   Event     `json:"event"`
	Task    string    `json:"task"`
	Step    string    `json:"step"` // the step's UUID
	Name    string    `json:"name"`
	Key     string    `json:"key"` // the idempotency key
	Lease   string    `json:"lease"`
	Attempt int       `json:"attempt"`
	PID     int       `json:"pid"`
	At      time.Time `json:"at"`
}

// Book is an open ledger.
type Book struct {
	dir string
	log *os.File
}

// Open opens the book in the directory, and creates it if it does not exist.
func Open(dir string) (*Book, error) {
	if err := os.MkdirAll(effects(dir), 0o700); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	f, err := os.OpenFile(logFile(dir), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	return &Book{dir: dir, log: f}, nil
}

func logFile(dir string) string { return filepath.Join(dir, "log") }
func effects(dir string) string { return filepath.Join(dir, "effects") }

// Close closes the book.
func (b *Book) Close() error { return b.log.Close() }

// Write appends an entry, in one write: entries of several processes never mix. A
// process that is killed during the write may leave the beginning of an entry; as
// every entry begins a new line, such a fragment does not damage others.
func (b *Book) Write(e Entry) error {
	e.PID, e.At = os.Getpid(), time.Now()
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	if _, err := b.log.Write(append([]byte{'\n'}, line...)); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}

// Effect is the keyed sink: the first effect of a key is accepted, all others are
// ignored. It reports whether this one was accepted.
func (b *Book) Effect(key string) (bool, error) {
	if key == "" || strings.ContainsAny(key, "/\x00") {
		return false, fmt.Errorf("effect of key %q: not a file's name", key)
	}
	f, err := os.OpenFile(filepath.Join(effects(b.dir), key), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("effect of key %s: %w", key, err)
	}
	return true, f.Close()
}

// Shut makes the steps of all processes that write to the book in a directory wait
// until open is called, even those that are running.
func Shut(dir string) (open func() error, err error) {
	if err := os.WriteFile(gate(dir), nil, 0o600); err != nil {
		return nil, fmt.Errorf("shut ledger: %w", err)
	}
	return func() error { return os.Remove(gate(dir)) }, nil
}

// IsShut reports whether steps must wait.
func (b *Book) IsShut() bool {
	_, err := os.Stat(gate(b.dir))
	return err == nil
}

func gate(dir string) string { return filepath.Join(dir, "shut") }

// Read returns all entries of the book in a directory, and the keys whose effect was
// accepted. Incomplete entries are ignored.
func Read(dir string) (entries []Entry, keys map[string]bool, err error) {
	src, err := os.ReadFile(logFile(dir))
	if err != nil {
		return nil, nil, fmt.Errorf("read ledger: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(src))
	for lines.Scan() {
		if !bytes.HasSuffix(lines.Bytes(), []byte{'}'}) {
			continue // the first line is empty, others are fragments
		}
		var e Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, nil, fmt.Errorf("read ledger, entry %d: %w", len(entries)+1, err)
		}
		entries = append(entries, e)
	}
	files, err := os.ReadDir(effects(dir))
	if err != nil {
		return nil, nil, fmt.Errorf("read ledger: %w", err)
	}
	keys = make(map[string]bool, len(files))
	for _, f := range files {
		keys[f.Name()] = true
	}
	return entries, keys, nil
}
