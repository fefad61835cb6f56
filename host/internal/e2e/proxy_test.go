package e2e_test

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// mood is what a proxy does to what passes through it.
type mood int32

const (
	honest        mood = iota
	losesRequests      // a connection ends with the next thing the client says; the server never hears it
	losesReplies       // a connection ends when the server has done, and committed, what the client asked for; the client never hears it
	numberOfMoods = 3
)

// proxy stands between hosts and their server, and cuts connections where it
// hurts: around a commit.
type proxy struct {
	dir    string // where clients find it, as a server's socket directory
	target string // the server's socket
	mood   atomic.Int32
	lost   [numberOfMoods]atomic.Int64 // connections that were cut, by mood
	wg     sync.WaitGroup
}

const socketName = ".s.PGSQL.5432"

// newProxy starts a proxy in front of the server whose socket lies in run.
func newProxy(t *testing.T, run string) *proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "proxy-")
	require.NoError(t, err)
	p := &proxy{dir: dir, target: filepath.Join(run, socketName)}
	listener, err := net.Listen("unix", filepath.Join(dir, socketName))
	require.NoError(t, err)
	p.wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		p.wg.Wait() // its clients, the hosts, are gone by now
		require.NoError(t, os.RemoveAll(dir))
	})
	return p
}

// serve connects one client with the server until one of them goes, or the
// proxy is in the mood to part them.
func (p *proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("unix", p.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	var both sync.WaitGroup
	both.Go(func() {
		p.requests(server, client)
		_ = server.Close()
		_ = client.Close()
	})
	p.replies(client, server)
	_ = server.Close()
	_ = client.Close()
	both.Wait()
}

// requests forwards what the client says.
func (p *proxy) requests(server io.Writer, client io.Reader) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		if mood(p.mood.Load()) == losesRequests {
			p.lost[losesRequests].Add(1)
			return
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// replies forwards what the server says, message by message: a byte for the
// kind, four for the length, which counts itself.
func (p *proxy) replies(client io.Writer, server io.Reader) {
	const readyForQuery = 'Z'
	cutting := false
	for {
		message := make([]byte, 5)
		if _, err := io.ReadFull(server, message); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(message[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		if cutting = cutting || mood(p.mood.Load()) == losesReplies; cutting {
			if message[0] == readyForQuery { // what was asked is done, and committed
				p.lost[losesReplies].Add(1)
				return
			}
			continue
		}
		if _, err := client.Write(append(message, body...)); err != nil {
			return
		}
	}
}
