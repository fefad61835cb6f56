package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasker-systems/tasker-host/host/internal/auth"
	"github.com/tasker-systems/tasker-host/sdk/task"
)

// Bounds on what one bulk submission holds in memory. A chunk is closed when it is large
// enough, or when the client pauses.
const (
	chunkLines  = 500
	chunkBytes  = 1 << 20
	chunkPause  = 5 * time.Millisecond
	chunksAhead = 3 // chunks that are being submitted while another is answered
	readBuffer  = 64 << 10
)

// bulkStream serves one bulk submission. One goroutine reads lines, one groups them into
// chunks, each chunk is submitted by a goroutine of its own, and run answers in order.
// Nothing is read while enough is in progress, so that a client that is faster than the
// database is slowed down by its connection.
type bulkStream struct {
	routes  *routes
	schema  *huma.Schema // of a line
	request *http.Request
	w       http.ResponseWriter
	ctl     *http.ResponseController
	key, by string
	line    int64 // number of the next line

	alive    chan struct{} // receives when something has happened
	underWay atomic.Int64  // chunks that are not answered yet
	silent   atomic.Bool   // the client has sent nothing for too long

	// Used by run.
	out   *bufio.Writer
	begun bool // the status line is written
	end   task.BulkEnd
}

// bulkLine is a line as it was received.
type bulkLine struct {
	number  int64
	data    []byte
	tooLong bool
}

// run serves the stream until it ends. Stopping the server ends the reading; lines that
// were read are still submitted and answered.
func (s *bulkStream) run(ctx context.Context) {
	s.alive, s.out = make(chan struct{}, 1), bufio.NewWriterSize(s.w, readBuffer)
	if err := s.ctl.EnableFullDuplex(); err != nil {
		s.routes.log.Error("a bulk submission cannot be answered while it is read", "error", err)
		writeProblem(s.w, s.request, internal())
		return
	}
	// If a body is not read to its end, the rest must not be mistaken for another
	// request.
	s.w.Header().Set("Connection", "close")
	_ = s.ctl.SetReadDeadline(time.Time{}) // watch takes care of it
	reading, stop := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop(nil)
	defer s.routes.attend(ctx, stop)()

	lines, chunks := make(chan bulkLine), make(chan *bulkChunk, chunksAhead-1)
	var readErr error // may be read once lines, and so chunks, is closed
	over := make(chan struct{})
	parts.Go(func() { s.watch(reading, over) })
	parts.Go(func() {
		defer close(lines)
		defer close(over)
		readErr = s.read(reading, lines)
	})
	parts.Go(func() {
		defer close(chunks)
		s.collect(ctx, lines, chunks, &parts)
	})
	for c := range chunks {
		<-c.done
		err := s.answer(c)
		s.underWay.Add(-1)
		s.stir()
		if err == nil && c.stopped == nil {
			continue
		}
		stop(nil)
		for c := range chunks {
			<-c.done // it gets no answer: the client has left, or will send it again
		}
		if c.stopped != nil {
			s.finish(c.stopped)
		}
		return
	}
	s.finish(s.cutShort(ctx, reading, readErr))
}

// stir tells watch that something has happened.
func (s *bulkStream) stir() {
	select {
	case s.alive <- struct{}{}:
	default:
	}
}

// watch ends the reading when ctx ends, or when the client takes too long to send a whole
// line while nothing is in progress. It does so with a deadline in the past. Once the
// reading is over it must not, since that would cut off the chunks in progress.
func (s *bulkStream) watch(ctx context.Context, over <-chan struct{}) {
	t := time.NewTimer(s.routes.bodyTimeout)
	defer t.Stop()
	for {
		select {
		case <-s.alive:
			t.Reset(s.routes.bodyTimeout)
			continue
		case <-t.C:
			if s.underWay.Load() > 0 {
				t.Reset(s.routes.bodyTimeout)
				continue
			}
			s.silent.Store(true)
		case <-ctx.Done():
		case <-over:
		}
		select {
		case <-over:
			return
		default:
		}
		_ = s.ctl.SetReadDeadline(time.Unix(1, 0))
		return
	}
}

// read passes lines on until the body or ctx ends. Empty lines are counted but not passed
// on. A line that ends with a broken connection does not count as one.
func (s *bulkStream) read(ctx context.Context, lines chan<- bulkLine) error {
	in := bufio.NewReaderSize(s.request.Body, readBuffer)
	for {
		data, tooLong, err := readLine(in, int(s.routes.limit))
		if err != nil && (!errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
			return err
		}
		if len(bytes.TrimSpace(data)) > 0 || tooLong {
			select {
			case lines <- bulkLine{s.line, data, tooLong}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		s.line++
		s.stir()
		if err != nil {
			return nil
		}
	}
}

// readLine reads up to the end of a line, and returns at most limit bytes of it.
func readLine(in *bufio.Reader, limit int) (line []byte, tooLong bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > limit {
			line, tooLong = nil, true
		}
		if !tooLong {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, tooLong, err // the caller distinguishes the end from an error
		}
	}
}

// collect groups lines into chunks and has each submitted.
func (s *bulkStream) collect(ctx context.Context, lines <-chan bulkLine, chunks chan<- *bulkChunk, parts *sync.WaitGroup) {
	for first := range lines {
		c := &bulkChunk{done: make(chan struct{})}
		s.add(c, first)
		pause := time.NewTimer(chunkPause)
		for open := true; open && len(c.answers) < chunkLines && c.bytes < chunkBytes; {
			select {
			case l, ok := <-lines:
				if open = ok; ok {
					s.add(c, l)
				}
			case <-pause.C:
				open = false
			}
		}
		pause.Stop()
		s.underWay.Add(1)
		parts.Go(func() { s.routes.submitChunk(ctx, c) })
		chunks <- c
	}
}

func (s *bulkStream) add(c *bulkChunk, l bulkLine) {
	c.bytes += len(l.data)
	c.answers = append(c.answers, task.BulkAnswer{Line: l.number})
	p := lineTooLong(s.routes.limit)
	var submission Submission
	if !l.tooLong {
		submission, p = s.routes.bulkLine(l.data, s.schema)
	}
	if p != nil {
		c.answers[len(c.answers)-1].Problem = &p.Problem
		return
	}
	submission.SubmittedBy = s.by
	if submission.IdempotencyKey == "" && s.key != "" {
		submission.IdempotencyKey = s.key + "-" + strconv.FormatInt(l.number, 10)
	}
	c.submissions = append(c.submissions, submission)
	c.at = append(c.at, len(c.answers)-1)
}

func lineTooLong(limit int64) *problem {
	return newProblem(http.StatusRequestEntityTooLarge, CodePayloadTooLarge,
		fmt.Sprintf("the line is too long: at most %d bytes are accepted", limit))
}

// answer sends the answers of a chunk that are complete.
func (s *bulkStream) answer(c *bulkChunk) error {
	if c.complete == 0 {
		return nil
	}
	for i := range c.answers[:c.complete] {
		a := &c.answers[i]
		switch {
		case a.Problem != nil:
			a.Problem.RequestID = requestID(s.request.Context())
			s.end.Refused++
		case a.Created:
			s.end.Created++
		default:
			s.end.Existing++
		}
		if err := s.write(a); err != nil {
			return err
		}
	}
	return s.flush()
}

// cutShort says why the stream ends before the client has ended it; nil: it does not.
func (s *bulkStream) cutShort(ctx, reading context.Context, readErr error) *problem {
	switch {
	case readErr == nil:
		return nil
	case s.silent.Load():
		return newProblem(http.StatusRequestTimeout, CodeRequestTimeout,
			fmt.Sprintf("no line came within %s", s.routes.bodyTimeout))
	case errors.Is(context.Cause(reading), auth.ErrRefused):
		return unauthenticated(context.Cause(reading).Error())
	case reading.Err() != nil && ctx.Err() == nil:
		return unavailable("the host is shutting down", drainPause)
	default:
		return newProblem(http.StatusBadRequest, CodeMalformedRequest, "the body is cut off or garbled")
	}
}

// drainPause is when a client of a host that shuts down may try again.
const drainPause = 5 * time.Second

// finish ends the answer. A stream that has not begun to answer is refused like any
// other request.
func (s *bulkStream) finish(p *problem) {
	if p != nil && !s.begun {
		writeProblem(s.w, s.request, p)
		return
	}
	if p != nil {
		p.RequestID = requestID(s.request.Context())
		s.end.Problem, s.end.RetryAfterSeconds = &p.Problem, retryAfter(p)
	}
	if err := s.write(&task.BulkAnswer{End: &s.end}); err == nil {
		_ = s.flush() // if it fails the client has left
	}
}

func (s *bulkStream) write(a *task.BulkAnswer) error {
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", linesType)
		s.w.WriteHeader(http.StatusOK)
	}
	if err := s.ctl.SetWriteDeadline(time.Now().Add(s.routes.eventTimeout)); err != nil {
		return fmt.Errorf("set the deadline of an answer: %w", err)
	}
	enc := json.NewEncoder(s.out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a); err != nil {
		return fmt.Errorf("write an answer: %w", err)
	}
	return nil
}

func (s *bulkStream) flush() error {
	if err := s.out.Flush(); err != nil {
		return fmt.Errorf("write answers: %w", err)
	}
	if err := s.ctl.Flush(); err != nil {
		return fmt.Errorf("flush answers: %w", err)
	}
	return nil
}
