package api

import (
	"fmt"
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// Accept waits for a client. The address of its connection is the name of the user that
// the client runs as, who is the principal of its requests.
func (l *socketListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err // unwrapped, because the server knows a listener's errors
	}
	return &peerConn{Conn: c, peer: peer(l.nameOf(c))}, nil
}

// peerConn is a connection from a user of this machine.
type peerConn struct {
	net.Conn
	peer peer
}

// RemoteAddr returns the user.
func (c *peerConn) RemoteAddr() net.Addr { return c.peer }

// peer is a user's name as an address.
type peer string

// Network returns unix.
func (peer) Network() string { return "unix" }

// String returns the user's name.
func (p peer) String() string { return string(p) }

// nameOf asks the kernel who opened a connection.
func (l *socketListener) nameOf(c net.Conn) string {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *unix.Ucred
	if raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }) != nil || err != nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	name, known := l.users[cred.Uid]
	if !known {
		name = fmt.Sprintf("uid-%d", cred.Uid)
		if found, err := user.LookupId(strconv.FormatUint(uint64(cred.Uid), 10)); err == nil {
			name = found.Username
		}
		l.users[cred.Uid] = name
	}
	return name
}
