package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the operating system user that the server runs as.
type account struct {
	name     string
	uid, gid uint32
	switched bool // it is not our own account: we are root
}

// serverAccount is our own account or, for root, the first of the usual
// unprivileged accounts that exists. If a name is given, root must use it.
func serverAccount(name string) (account, error) {
	if os.Geteuid() != 0 {
		me, err := user.Current()
		if err != nil {
			return account{}, fmt.Errorf("look up the current account, which PostgreSQL needs: %w", err)
		}
		return newAccount(me, false)
	}
	names := []string{"postgres", "nobody"}
	if name != "" {
		names = []string{name}
	}
	for _, name := range names {
		if u, err := user.Lookup(name); err == nil && u.Uid != "0" {
			return newAccount(u, true)
		}
	}
	return account{}, fmt.Errorf("find an account to run PostgreSQL under, which refuses to run as root: none of %q exists", names)
}

func newAccount(u *user.User, switched bool) (account, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("account %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("account %s: %w", u.Username, err)
	}
	return account{name: u.Username, uid: uint32(uid), gid: uint32(gid), switched: switched}, nil
}

// own gives a file or directory of ours to the server's account.
func (a account) own(path string) error {
	if !a.switched {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// command prepares a program to run under the account. The program inherits
// nothing from our environment, since PG* variables and locales would change its
// behavior. It gets its own process group, so that a ^C at the terminal reaches
// only us.
func (a account) command(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C", "HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.switched {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return cmd
}

// makeParents creates the directories that lead to the state directory. If root
// creates them, the account can traverse them whatever root's umask is.
func (a account) makeParents(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := a.makeParents(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if !a.switched {
		return nil
	}
	return os.Chmod(dir, 0o711)
}

// reaches checks that the account can traverse every directory above dir.
func (a account) reaches(dir string) error {
	if !a.switched {
		return nil
	}
	for p := filepath.Dir(dir); ; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.New("this system does not report who owns a directory")
		}
		need := os.FileMode(0o001)
		switch {
		case st.Uid == a.uid:
			need = 0o100
		case st.Gid == a.gid:
			need = 0o010
		}
		if info.Mode()&need == 0 {
			return fmt.Errorf("%s is closed to account %q, under which PostgreSQL runs for root: choose a state directory elsewhere, such as %s",
				p, a.name, rootStateDir)
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}
