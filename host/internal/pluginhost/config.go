package pluginhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
)

// KindHandler is the kind of plugins that run steps.
const KindHandler = "handler"

// Spec is one configured plugin.
type Spec struct {
	Kind string // KindHandler
	Name string // unique; ^[a-z][a-z0-9_-]{0,62}$
	Path string // of the executable, absolute
	// SHA256 is what the executable must hash to, in hexadecimal; empty: anything.
	SHA256 string
	// Required makes Start fail if the plugin does not start. One that is not
	// required is tried again with back-off.
	Required bool
	// MaxInFlight is the most steps it gets at once; the plugin may want less.
	// 1 to 100000; default 64.
	MaxInFlight int
	// StartTimeout is from exec to ready; default 10s.
	StartTimeout time.Duration
	// Env names the variables of the host's environment that it may see.
	Env []string
	// Options is a JSON object for the plugin; empty: none.
	Options json.RawMessage

	MaxFiles    uint64 // open files; default 256 and four for each step in flight
	MemoryLimit int64  // GOMEMLIMIT in bytes; 0: not set
	MaxProcs    int    // GOMAXPROCS; 0: not set
	LogLimits   process.LogLimits
}

// Config is what the host is made from.
type Config struct {
	Plugins []Spec
	// StoreDir holds the copies that are executed. It is made if missing.
	StoreDir string
	// RunDir is where the directory for sockets is made; short, because the path
	// of a socket is. Default: the system's directory for temporary files.
	RunDir string
	// Environment is told to the plugins: development, test, production, …
	Environment string
	// NextGeneration gives a number that no host has given before: a database
	// sequence.
	NextGeneration func(context.Context) (uint64, error)

	// StartParallel is how many plugins are started at once; default 4.
	StartParallel int
	Restart       Restart
	// HealthInterval is between health checks; default 10s. HealthTimeout is for
	// each; default 5s. A plugin that misses three in a row is killed.
	HealthInterval, HealthTimeout time.Duration
}

// Restart says how plugins are started again.
type Restart struct {
	// Base and Cap bound the wait before the n-th start in a row: random
	// between nothing and Base·2ⁿ, at most Cap. Default 100ms and 30s.
	Base, Cap time.Duration
	// Exits within Window open the breaker: the plugin rests for Open, then gets
	// one try. Default 5 in 60s, 60s.
	Exits        int
	Window, Open time.Duration
	// Stable is how long a process must serve for its start to count as a
	// success. Default 30s.
	Stable time.Duration
}

var (
	pluginName   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	handlerName  = regexp.MustCompile(`^[a-z][a-z0-9_.\-]{0,127}$`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

const maxWindow = 100_000

// withDefaults fills in what is zero and returns all that is wrong.
func (c Config) withDefaults() (Config, error) {
	setDefault(&c.StartParallel, 4)
	setDefault(&c.HealthInterval, 10*time.Second)
	setDefault(&c.HealthTimeout, 5*time.Second)
	setDefault(&c.Restart.Base, 100*time.Millisecond)
	setDefault(&c.Restart.Cap, 30*time.Second)
	setDefault(&c.Restart.Exits, 5)
	setDefault(&c.Restart.Window, time.Minute)
	setDefault(&c.Restart.Open, time.Minute)
	setDefault(&c.Restart.Stable, 30*time.Second)

	var errs []error
	if c.NextGeneration == nil {
		errs = append(errs, errors.New("no source of generation numbers"))
	}
	if c.StoreDir == "" {
		errs = append(errs, errors.New("no directory for the plugin store"))
	}
	specs := make([]Spec, len(c.Plugins))
	seen := make(map[string]bool, len(specs))
	for i, s := range c.Plugins {
		setDefault(&s.MaxInFlight, 64)
		setDefault(&s.StartTimeout, 10*time.Second)
		setDefault(&s.MaxFiles, 256+4*uint64(max(s.MaxInFlight, 0))) //nolint:gosec // not negative
		errs = append(errs, s.check())
		if seen[s.Name] {
			errs = append(errs, fmt.Errorf("plugin %q is configured twice", s.Name))
		}
		seen[s.Name] = true
		specs[i] = s
	}
	c.Plugins = specs
	return c, errors.Join(errs...)
}

func (s Spec) check() error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("plugin %q: "+format, append([]any{s.Name}, args...)...))
	}
	if s.Kind != KindHandler {
		wrong("kind %q is not %q", s.Kind, KindHandler)
	}
	if !pluginName.MatchString(s.Name) {
		wrong("the name must match %s", pluginName)
	}
	if !filepath.IsAbs(s.Path) {
		wrong("path %q is not absolute", s.Path)
	}
	if s.MaxInFlight < 1 || s.MaxInFlight > maxWindow {
		wrong("max_in_flight %d is not between 1 and %d", s.MaxInFlight, maxWindow)
	}
	for _, name := range s.Env {
		if !variableName.MatchString(name) {
			wrong("%q is not the name of an environment variable", name)
		}
	}
	return errors.Join(errs...)
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
