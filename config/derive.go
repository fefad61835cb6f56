package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// readURL settles where database.url comes from: the later of url and url_file
// wins, and a password stands in no file that others read.
func (l *loader) readURL(c *Config) {
	urlAt, fileAt := l.origins["database.url"], l.origins["database.url_file"]
	if inFile(urlAt) && hasPassword(c.Database.URL.Reveal()) {
		l.problems.add(urlAt, "database.url", "contains a password: set DATABASE_URL or database.url_file instead")
	}
	if c.Database.URLFile == "" {
		return
	}
	if !c.Database.URL.IsZero() {
		if inFile(urlAt) {
			l.problems.add(fileAt, "database.url_file", "database.url is set too (%s): keep one of them", urlAt)
		}
		return
	}
	text, err := os.ReadFile(c.Database.URLFile)
	if err != nil {
		l.problems.add(fileAt, "database.url_file", "%v", err)
		return
	}
	if info, err := os.Stat(c.Database.URLFile); err == nil && info.Mode().Perm()&0o004 != 0 {
		l.warnings = append(l.warnings, fmt.Sprintf("%s: everybody on this machine may read it, run: chmod 600 %[1]s", c.Database.URLFile))
	}
	c.Database.URL = NewSecret(strings.TrimSpace(string(text)))
	if c.Database.URL.IsZero() {
		l.problems.add(fileAt, "database.url_file", "%s is empty", c.Database.URLFile)
	}
}

// inFile reports whether a value stands in a file or on a command line, where
// others can read it.
func inFile(o Origin) bool {
	return o.Source != "" && !strings.HasPrefix(o.Source, "environment variable ")
}

func hasPassword(connection string) bool {
	if u, err := url.Parse(connection); err == nil && u.Scheme != "" {
		_, set := u.User.Password()
		return set || u.Query().Has("password")
	}
	return strings.Contains(connection, "password")
}

// derive fills in the paths that follow from others and makes all absolute.
func (l *loader) derive(c *Config) error {
	if c.System.StateDir == "" {
		dir, err := l.defaultStateDir()
		if err != nil {
			return err
		}
		c.System.StateDir = dir
	}
	if c.System.Plugins == "" {
		c.System.Plugins = defaultPlugins(c.Dir)
	}
	for _, p := range []*string{&c.System.StateDir, &c.System.Plugins, &c.System.Socket, &c.Database.Embedded.StateDir, &c.Database.Embedded.BinDir} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("resolve path %s: %w", *p, err)
		}
		*p = abs
	}
	if c.System.Socket == "" {
		c.System.Socket = filepath.Join(c.System.StateDir, "tasker.sock")
	}
	if c.Database.Embedded.StateDir == "" {
		c.Database.Embedded.StateDir = filepath.Join(c.System.StateDir, "postgres")
	}
	return nil
}

// systemStateDir is where root's host keeps its state.
const systemStateDir = "/var/lib/tasker"

func (l *loader) defaultStateDir() (string, error) {
	if dir := l.vars["XDG_STATE_HOME"]; filepath.IsAbs(dir) {
		return filepath.Join(dir, "tasker"), nil
	}
	if os.Geteuid() == 0 {
		// The home of root is closed to the account that a private PostgreSQL runs
		// under.
		return systemStateDir, nil
	}
	if home := l.vars["HOME"]; filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "tasker"), nil
	}
	return "", &Error{Problems: []Problem{{
		Key:     "system.state_dir",
		Message: "neither XDG_STATE_HOME nor HOME is set: say where the host keeps its state",
	}}}
}

func defaultPlugins(dir string) string {
	const name = "plugins.toml"
	if dir == "" {
		return name
	}
	own := filepath.Join(dir, name)
	if _, err := os.Stat(own); errors.Is(err, fs.ErrNotExist) {
		return name
	}
	return own
}
