package client

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/task"
)

// Limits on the lines that wait for an answer. They are wide enough to keep the
// host busy while answers are on their way.
const (
	windowLines = 4000
	windowBytes = 8 << 20
	// sendPause is how long a connection may have nothing to send before it is
	// ended, because the host would end it. The next line opens another.
	sendPause = 3 * time.Second
	// sendLinger is how long the source may pause before what was written is sent.
	sendLinger = 2 * time.Millisecond
)

// bulkLine is a line as the source emits it: what to send, or why there is nothing
// to send. In that case the host gets an empty line, which counts but has no
// answer.
type bulkLine struct {
	data    []byte
	refused *task.Problem
}

// unanswered reports whether the host does not answer the line.
func (l bulkLine) unanswered() bool { return l.refused != nil || len(bytes.TrimSpace(l.data)) == 0 }

// sent returns what the host gets of the line.
func (l bulkLine) sent() []byte {
	if l.refused != nil {
		return []byte("\n")
	}
	return l.data
}

// window holds the lines that were taken from the source and have no answer yet,
// in order.
type window struct {
	mu    sync.Mutex
	lines []bulkLine
	first int64 // the number of the first of them
	bytes int
	sent  int           // how many of them were sent on the current connection
	room  chan struct{} // has an element when there may be room
}

func newWindow() *window { return &window{first: 1, room: make(chan struct{}, 1)} }

func (w *window) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.lines)
}

// push adds a line.
func (w *window) push(line bulkLine) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, line)
	w.bytes += len(line.data)
}

// next returns a line to send, if there is one; full reports that no more may be
// pushed.
func (w *window) next() (line []byte, ok, full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sent < len(w.lines) {
		w.sent++
		return w.lines[w.sent-1].sent(), true, false
	}
	return nil, false, len(w.lines) >= windowLines || w.bytes >= windowBytes
}

// rewind lets all lines be sent again, and returns the number of the first.
func (w *window) rewind() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = 0
	return w.first
}

// pop removes the lines up to the given one, which the host has answered, and
// returns that line, and those before it that were refused here, which the host
// does not answer. ok is false if the line was not sent.
func (w *window) pop(number int64) (refused []task.BulkAnswer, line []byte, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := int(number - w.first)
	if n < 0 || n >= w.sent || !w.unanswered(n) || w.lines[n].refused != nil {
		return nil, nil, false
	}
	line = w.lines[n].data
	return w.drop(n + 1), line, true
}

// mute reports whether the host answers none of the lines, so that sending makes
// no room.
func (w *window) mute() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unanswered(len(w.lines))
}

// settle removes the remaining lines if the host does not answer them, and reports
// whether they are all that was sent; refused are those that were refused here.
func (w *window) settle() (refused []task.BulkAnswer, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.unanswered(w.sent) {
		return nil, false
	}
	return w.drop(w.sent), true
}

// unanswered reports whether the host answers none of the first n lines. The
// caller holds the lock.
func (w *window) unanswered(n int) bool {
	for _, line := range w.lines[:n] {
		if !line.unanswered() {
			return false
		}
	}
	return true
}

// drop removes the first n lines, and returns the answers to those that were
// refused here. The caller holds the lock.
func (w *window) drop(n int) (refused []task.BulkAnswer) {
	for i, line := range w.lines[:n] {
		if line.refused != nil {
			refused = append(refused, task.BulkAnswer{Line: w.first + int64(i), Problem: line.refused})
		}
		w.bytes -= len(line.data)
		w.lines[i] = bulkLine{}
	}
	w.lines, w.first, w.sent = w.lines[n:], w.first+int64(n), w.sent-n
	select {
	case w.room <- struct{}{}:
	default:
	}
	return refused
}

// send writes lines until the source ends or pauses for long. A line from the
// source enters the window before it is written.
func (b *bulk) send(ctx context.Context, to io.Writer) error {
	out := bufio.NewWriterSize(to, 64<<10)
	for {
		line, ok, full := b.window.next()
		if !ok {
			more, err := b.refill(ctx, out, full)
			if err != nil || !more {
				return err
			}
			continue
		}
		if _, err := out.Write(line); err != nil {
			return fmt.Errorf("send a line: %w", err)
		}
	}
}

// refill takes a line from the source, or waits for room if the window is full. It
// sends what was written before it waits.
func (b *bulk) refill(ctx context.Context, out *bufio.Writer, full bool) (more bool, err error) {
	source, room := b.source, (<-chan struct{})(nil)
	if full {
		if b.window.mute() { // the end of the connection makes room
			return false, out.Flush()
		}
		source, room = nil, b.window.room
	}
	select { // usually there is one, and no timer is needed
	case line, open := <-source:
		if open {
			b.window.push(line)
			return true, nil
		}
	case <-room:
		return true, nil
	default:
	}
	linger, pause := time.NewTimer(sendLinger), time.NewTimer(sendPause)
	defer linger.Stop()
	defer pause.Stop()
	for {
		select {
		case line, open := <-source:
			if open {
				b.window.push(line)
				return true, nil
			}
			return false, out.Flush() // the request's own error says why
		case <-room:
			return true, nil
		case <-linger.C:
			if err := out.Flush(); err != nil {
				return false, err
			}
		case <-pause.C:
			if source != nil {
				return false, nil
			}
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}
