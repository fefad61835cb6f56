// Package systemd tells the service manager how the host is: ready, reloading,
// stopping, and by the watchdog that it works. It speaks the protocol of
// sd_notify(3): a datagram on the socket that NOTIFY_SOCKET names. The package
// knows nothing of the host; whoever owns the host calls it. Without a service
// manager there is no [Manager], and a nil one does nothing.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Manager is the service manager that started this process.
type Manager struct {
	address *net.UnixAddr
	every   time.Duration // between signs of life; 0: none are wanted
}

// FromEnvironment returns the manager that the environment names; nil: none.
func FromEnvironment(getenv func(string) string) (*Manager, error) {
	socket := getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil, nil // a nil manager does nothing
	}
	if socket[0] != '/' && socket[0] != '@' {
		return nil, fmt.Errorf("NOTIFY_SOCKET %.100q: want a path, or a name that begins with @", socket)
	}
	m := &Manager{address: &net.UnixAddr{Name: socket, Net: "unixgram"}}
	usec := getenv("WATCHDOG_USEC")
	if usec == "" || getenv("WATCHDOG_PID") != "" && getenv("WATCHDOG_PID") != strconv.Itoa(os.Getpid()) {
		return m, nil
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(24*time.Hour/time.Microsecond) {
		return nil, fmt.Errorf("WATCHDOG_USEC %.40q: want microseconds, at most a day", usec)
	}
	m.every = time.Duration(n) * time.Microsecond / 3 // two may get lost
	return m, nil
}

// Ready says that the host is up, or that a reload is over.
func (m *Manager) Ready(status string) error { return m.send("READY=1", text(status)) }

// Reloading says that the configuration is read anew; Ready ends it.
func (m *Manager) Reloading() error {
	if m == nil {
		return nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return m.send("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// Stopping says that the host shuts down, and within which time it will have.
func (m *Manager) Stopping(status string, within time.Duration) error {
	return m.send("STOPPING=1", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", within.Microseconds()), text(status))
}

// Watch gives the signs of life that the manager wants, as long as alive says so
// and until ctx ends. A host that is not alive is killed and started again, so
// problem is told once why it was silent, if it was.
func (m *Manager) Watch(ctx context.Context, alive func() error, problem func(error)) {
	if m == nil || m.every == 0 {
		return
	}
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	silent := false
	for {
		err := alive()
		if err == nil {
			err = m.send("WATCHDOG=1")
		}
		if err != nil && !silent {
			problem(err)
		}
		silent = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *Manager) send(lines ...string) error {
	if m == nil {
		return nil
	}
	conn, err := net.DialUnix(m.address.Net, nil, m.address)
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	_, err = conn.Write([]byte(strings.Join(lines, "\n")))
	if err := errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// text is a line for people.
func text(status string) string { return "STATUS=" + strings.ReplaceAll(status, "\n", " ") }
