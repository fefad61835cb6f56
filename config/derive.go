package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// readSecrets finds the source of each secret. Each secret key has a counterpart with
// the suffix _file that names a file with the secret; the later of the two wins, and
// secrets are refused in files that others can read.
func (l *loader) readSecrets(c *Config) {
	root := reflect.ValueOf(c).Elem()
	for _, key := range l.schema.keys() {
		leaf := l.schema[key]
		if leaf.typ != reflect.TypeFor[Secret]() {
			continue
		}
		value := root.FieldByIndex(leaf.index).Addr().Interface().(*Secret)
		file := root.FieldByIndex(l.schema[key+"_file"].index).String()
		l.readSecret(key, value, file)
	}
}

func (l *loader) readSecret(key string, value *Secret, file string) {
	fileKey := key + "_file"
	at, fileAt := l.origins[key], l.origins[fileKey]
	if inFile(at) && isSecret(key, value.Reveal()) {
		l.problems.add(at, key, "secrets are not allowed in configuration files or on the command line: set %s or %s instead", variableOf(key), fileKey)
	}
	if file == "" {
		return
	}
	if !value.IsZero() {
		if inFile(at) {
			l.problems.add(fileAt, fileKey, "%s is also set (%s): keep one of them", key, at)
			return
		}
		if fileAt.Source != commandLine {
			return // the variable comes later
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		l.problems.add(fileAt, fileKey, "%v", err)
		return
	}
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o004 != 0 {
		l.warnings = append(l.warnings, fmt.Sprintf("%s: every user of this machine can read it; run: chmod 600 %[1]s", file))
	}
	*value = NewSecret(strings.TrimSpace(string(text)))
	if value.IsZero() {
		l.problems.add(fileAt, fileKey, "%s is empty", file)
	}
	l.origins[key] = Origin{Source: file}
}

// isSecret reports whether a value must not be where others can read it. A database's
// url may, as long as it contains no password.
func isSecret(key, value string) bool {
	if key == "database.url" {
		return hasPassword(value)
	}
	return value != ""
}

// variableOf names the environment variable that sets a key.
func variableOf(key string) string {
	if key == "database.url" {
		return "DATABASE_URL"
	}
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "__"))
}

// inFile reports whether a value is in a file or on a command line, where others can
// read it.
func inFile(o Origin) bool {
	return o.Source != "" && !strings.HasPrefix(o.Source, "environment variable ")
}

// hasPassword reports whether a connection string contains a password as the driver
// reads it, whose rules are those of libpq and wider than those of net/url: a password
// may contain any character but @ and /, and each of several hosts may have a port.
func hasPassword(connection string) bool {
	_, rest, isURL := strings.Cut(connection, "://")
	if !isURL {
		return strings.Contains(connection, "password")
	}
	if end := strings.IndexAny(rest, "@/"); end >= 0 && rest[end] == '@' && strings.Contains(rest[:end], ":") {
		return true
	}
	_, query, _ := strings.Cut(rest, "?")
	for pair := range strings.SplitSeq(query, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(key); err != nil || strings.HasSuffix(strings.ToLower(plain), "password") {
			return true // also if the key cannot be read
		}
	}
	return false
}

// derive fills in the paths that depend on others and makes all of them absolute.
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

// systemStateDir is where a host that runs as root keeps its state.
const systemStateDir = "/var/lib/tasker"

func (l *loader) defaultStateDir() (string, error) {
	if dir := l.vars["XDG_STATE_HOME"]; filepath.IsAbs(dir) {
		return filepath.Join(dir, "tasker"), nil
	}
	if os.Geteuid() == 0 {
		// The account that a private PostgreSQL runs under cannot read root's home.
		return systemStateDir, nil
	}
	if home := l.vars["HOME"]; filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "tasker"), nil
	}
	return "", &Error{Problems: []Problem{{
		Key:     "system.state_dir",
		Message: "neither XDG_STATE_HOME nor HOME is set: set the directory for the host's state",
	}}}
}

func defaultPlugins(dir string) string {
	if dir == "" {
		return pluginsFile
	}
	own := filepath.Join(dir, pluginsFile)
	if _, err := os.Stat(own); errors.Is(err, fs.ErrNotExist) {
		return pluginsFile
	}
	return own
}
