package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits into a sockaddr_un, minus the terminating NUL and the suffix
// of the name under which a socket is created.
const maxSocketPath = 107 - len(".new")

// listenUnix listens on a Unix socket at path. A lock file beside it says who owns the
// path, so two hosts that start at the same time cannot unlink each other's socket. A
// socket on which nobody answers is replaced. The socket gets its permissions before it
// gets its name, so there is no moment at which others could connect.
func listenUnix(ctx context.Context, path string, group bool) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen on %s: the path has %d bytes and a unix socket's may have %d; choose a shorter one with --socket",
			path, len(path), maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	lock, err := lockPath(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := replaceSocket(ctx, path, group)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), lock.Close())
	}
	return &socketListener{Listener: l, path: path, lock: lock, users: map[uint32]string{}}, nil
}

func lockPath(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.New("another host already serves it; stop it, or choose another path with --socket")
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// replaceSocket binds beside the path and renames the result. Called under the lock.
func replaceSocket(ctx context.Context, path string, group bool) (net.Listener, error) {
	if err := removable(ctx, path); err != nil {
		return nil, err
	}
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the file of an earlier start: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", temp)
	if err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // it would unlink the name that it was created under
	}
	mode := fs.FileMode(0o600)
	if group {
		mode = 0o660
	}
	if err := errors.Join(os.Chmod(temp, mode), os.Rename(temp, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("put the socket in place: %w", err), l.Close(), os.Remove(temp))
	}
	return l, nil
}

// removable reports whether what is at path may be replaced: nothing, or a socket that
// refuses connections.
func removable(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("inspect the existing file: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file that is not a socket is in the way; move it, or choose another path with --socket")
	}
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
		return errors.New("another process answers on it; stop it, or choose another path with --socket")
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("check whether the existing socket is served: %w", err)
	}
	return nil
}

// socketListener removes the socket and then releases the path when it is closed.
type socketListener struct {
	net.Listener
	path string
	lock *os.File
	once sync.Once
	err  error

	mu    sync.Mutex
	users map[uint32]string // names by number
}

// Addr returns the path that clients use.
func (l *socketListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *socketListener) Close() error {
	l.once.Do(func() {
		remove := os.Remove(l.path)
		if errors.Is(remove, fs.ErrNotExist) {
			remove = nil
		}
		l.err = errors.Join(l.Listener.Close(), remove, l.lock.Close())
	})
	return l.err
}

// listenTCP listens on a TCP address. It must be an address of this machine only, unless
// clients must authenticate.
func listenTCP(ctx context.Context, address string, authenticated bool) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: want host:port, such as 127.0.0.1:8085: %w", address, err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); !authenticated && (err != nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("listen on %q: only loopback addresses are allowed without authentication; use 127.0.0.1:%s", address, port)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, port))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: another program already does; stop it, or set another address with system.http_listen or --http", address)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}
