package api

import (
	"net"
	"sync"
	"time"
)

// bounded is a listener with a limit on simultaneous connections. When all places are
// taken, makeRoom is called again and again until one is free: connections that only
// wait for another request, which cost a stranger nothing, must not keep others out,
// least of all probes.
type bounded struct {
	net.Listener
	places   chan struct{}
	makeRoom func()
	closed   chan struct{}
	close    func()
}

// roomInterval is how often makeRoom is called while there is no free place.
const roomInterval = 100 * time.Millisecond

func newBounded(l net.Listener, most int, makeRoom func()) *bounded {
	b := &bounded{Listener: l, places: make(chan struct{}, most), makeRoom: makeRoom, closed: make(chan struct{})}
	b.close = sync.OnceFunc(func() { close(b.closed) })
	return b
}

// Accept waits for a place, and then for a connection to take it.
func (b *bounded) Accept() (net.Conn, error) {
	if !b.place() {
		return nil, net.ErrClosed
	}
	leave := sync.OnceFunc(func() { <-b.places })
	c, err := b.Listener.Accept()
	if err != nil {
		leave()
		return nil, err
	}
	return &guest{Conn: c, leave: leave}, nil
}

// place waits for a place; false: the listener is closed.
func (b *bounded) place() bool {
	select {
	case b.places <- struct{}{}:
		return true
	default:
	}
	t := time.NewTicker(roomInterval)
	defer t.Stop()
	for {
		b.makeRoom()
		select {
		case b.places <- struct{}{}:
			return true
		case <-b.closed:
			return false
		case <-t.C:
		}
	}
}

// Close ends Accept.
func (b *bounded) Close() error {
	b.close()
	return b.Listener.Close()
}

// guest is a connection that takes a place until it is closed.
type guest struct {
	net.Conn
	leave func()
}

// Close gives the place back.
func (g *guest) Close() error {
	defer g.leave()
	return g.Conn.Close()
}
