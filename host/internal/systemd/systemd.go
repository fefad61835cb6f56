// Package systemd tells the service manager whether the host is ready, reloading or
// stopping, and feeds its watchdog. It speaks the protocol of sd_notify(3): a datagram to
// the socket named by NOTIFY_SOCKET. The package does not know the host; its owner calls
// it. Without a service manager, the [Manager] is nil, and a nil one does nothing.
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
	every   time.Duration // between watchdog messages; 0: none are wanted
}

// FromEnvironment returns the manager named by the environment, or nil if there is none.
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

// Ready reports that the host is up, or that a reload is over.
func (m *Manager) Ready(status string) error { return m.send("READY=1", text(status)) }

// Reloading reports that the configuration is being reloaded; Ready ends it.
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

// Stopping reports that the host is shutting down, and how long that may take.
func (m *Manager) Stopping(status string, within time.Duration) error {
	return m.send("STOPPING=1", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", within.Microseconds()), text(status))
}

// Watch feeds the manager's watchdog until ctx ends, as long as alive returns no error. A
// host that is not alive is killed and restarted, so problem is told once why nothing was
// sent.
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

// text returns a status line for people.
func text(status string) string { return "STATUS=" + strings.ReplaceAll(status, "\n", " ") }
