package runas

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// User is the user, and the group, that a process runs as.
type User struct {
	Name     string // as it was named
	UID, GID uint32
	// Unlimited is set if the host cannot limit the process's open files and core dumps:
	// for a process of another user that takes CAP_SYS_RESOURCE.
	Unlimited bool
}

// String briefly describes the user, for a table.
func (u User) String() string {
	s := "user " + u.Name
	if u.Unlimited {
		s += " (not enforced: open files)"
	}
	return s
}

// Report describes the user.
func (u User) Report() string {
	return fmt.Sprintf("runs as %s (user %d, group %d, no other groups)", u.Name, u.UID, u.GID)
}

// Error says why a process cannot run as a user, and what to do about it.
type Error struct {
	Reason string // what is wrong
	Fix    string // what to do
	Err    error  // the cause, if there is one
}

var _ error = (*Error)(nil)

// Error returns reason and fix in one line.
func (e *Error) Error() string {
	s := e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s + " (" + e.Fix + ")"
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Find finds a user, given as name or name:group, each by name or number; without a group
// it uses the user's own. It returns nil if that is the host's user. Errors are of type
// *[Error].
func Find(text string) (*User, error) {
	if text == "" {
		return nil, nil
	}
	u, err := lookup(text)
	if err != nil {
		return nil, err
	}
	if int(u.UID) == os.Geteuid() && int(u.GID) == os.Getegid() {
		return nil, nil
	}
	held, err := capabilities()
	if err != nil {
		return nil, &Error{Reason: "the host cannot determine whether it may run it as " + text, Fix: "start the host as root", Err: err}
	}
	return u, u.allow(held)
}

// needed lists the capabilities needed for processes of other users.
var needed = []struct {
	bit  int
	name string
}{
	{unix.CAP_SETUID, "CAP_SETUID"},
	{unix.CAP_SETGID, "CAP_SETGID"},
	{unix.CAP_CHOWN, "CAP_CHOWN"},
	{unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE"},
	{unix.CAP_KILL, "CAP_KILL"},
}

// allow returns an error if a host with the given capabilities must not start processes
// of the user, and notes what it cannot do to them.
func (u *User) allow(held uint64) error {
	var missing []string
	for _, c := range needed {
		if held&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return &Error{
			Reason: fmt.Sprintf("the host may not run it as %s: it lacks %s", u.Name, strings.Join(missing, ", ")),
			Fix:    "start the host as root or with these capabilities, or set user = \"\" to run it as the host's user",
		}
	}
	u.Unlimited = held&(1<<unix.CAP_SYS_RESOURCE) == 0
	return nil
}

// capabilities returns the effective capabilities, one bit each.
func capabilities() (uint64, error) {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return 0, fmt.Errorf("read the host's capabilities: %w", err)
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}

func lookup(text string) (*User, error) {
	name, group, _ := strings.Cut(text, ":")
	found := &User{Name: text}
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	switch {
	case err == nil:
		if group == "" {
			group = u.Gid
		}
		name = u.Uid
	case !unknown(err) && !errors.Is(err, strconv.ErrSyntax):
		return nil, &Error{Reason: "the user " + name + " cannot be looked up", Fix: "repair the machine's list of users", Err: err}
	}
	var ok bool
	if found.UID, ok = number(name); !ok {
		return nil, &Error{Reason: fmt.Sprintf("there is no user %q on this machine", name), Fix: "create it, for example with useradd --system, or use another"}
	}
	if group == "" {
		return nil, &Error{Reason: fmt.Sprintf("the user %s has no entry on this machine that gives its group", name), Fix: "give the group too: " + name + ":GROUP"}
	}
	if g, err := user.LookupGroup(group); err == nil {
		group = g.Gid
	}
	if found.GID, ok = number(group); !ok {
		return nil, &Error{Reason: fmt.Sprintf("there is no group %q on this machine", group), Fix: "create it, for example with groupadd --system, or use another"}
	}
	return found, nil
}

// unknown reports whether the error means that a user does not exist.
func unknown(err error) bool {
	var byName user.UnknownUserError
	var byID user.UnknownUserIdError
	return errors.As(err, &byName) || errors.As(err, &byID)
}

// number parses an identifier; the largest value means none.
func number(text string) (uint32, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil && n < 1<<32-1
}
