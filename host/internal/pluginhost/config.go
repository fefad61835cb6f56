package pluginhost

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/journal"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
)

// The kinds of plugins.
const (
	KindHandler = "handler" // runs steps
	KindScaling = "scaling" // sizes pools
	KindHealth  = "health"  // checks how something is
)

var (
	kinds   = []string{KindHandler, KindScaling, KindHealth}
	plurals = map[string]string{KindHandler: "handlers", KindScaling: "scaling algorithms", KindHealth: "health reporters"}
)

// Spec is one configured plugin.
type Spec struct {
	Kind string // one of the kinds
	Name string // unique in its kind; ^[a-z][a-z0-9_-]{0,62}$
	Path string // of the executable, absolute; empty: it is already in the store
	// SHA256 is the expected hash of the executable, in hexadecimal; if empty, any is
	// accepted.
	SHA256 string
	// Required makes Start fail if the plugin does not start. A plugin that is not
	// required is retried with back-off.
	Required bool
	// MaxInFlight is the most steps it gets at once; the plugin may ask for fewer. 1 to
	// 100000; default 64.
	MaxInFlight int
	// StartTimeout limits the time from exec to ready; default 10s.
	StartTimeout time.Duration
	// User is the user its processes run as, name or name:group; if empty, the host's
	// user.
	User string
	// Env names the variables of the host's environment that it may see.
	Env []string
	// Options is a JSON object for the plugin, or empty. Config.Options resolves the
	// references in it.
	Options json.RawMessage

	MaxFiles    uint64 // open files; default 256 plus four for each step in flight
	MemoryLimit int64  // GOMEMLIMIT in bytes; 0: not set
	MaxProcs    int    // GOMAXPROCS; 0: not set
	// Limits are enforced by control groups where the host may create them; elsewhere the
	// memory is watched, and a process that exceeds its limit is ended.
	Limits    process.Limits
	LogLimits process.LogLimits

	// DrainTimeout is how long the calls of a replaced generation may continue before
	// they are cancelled; default 30s.
	DrainTimeout time.Duration
	// RollbackWindow is how long a replaced generation is kept warm; default 10m,
	// negative: not at all.
	RollbackWindow time.Duration
	// Rollout determines how a new generation takes over.
	Rollout Rollout

	// Unchanged says that nobody asks for a change: whatever the slot runs, or is rolling
	// out, stays, even if it differs. It is no setting.
	Unchanged bool
}

// ID returns the slot that the plugin is for.
func (s Spec) ID() SlotID { return SlotID{Kind: s.Kind, Name: s.Name} }

// origin describes where the executable comes from.
func (s Spec) origin() string {
	if s.Path == "" {
		return "sha256 " + s.SHA256
	}
	return s.Path
}

// fixed returns pointers to the settings that a process is started with: another value
// needs another process.
func (s *Spec) fixed() []any {
	return []any{&s.Options, &s.Env, &s.MaxInFlight, &s.MaxFiles, &s.MemoryLimit, &s.MaxProcs, &s.LogLimits, &s.Limits, &s.User}
}

// keepFixed gives a specification those settings of another that a process is started
// with.
func (s *Spec) keepFixed(of Spec) {
	from := of.fixed()
	for i, to := range s.fixed() {
		reflect.ValueOf(to).Elem().Set(reflect.ValueOf(from[i]).Elem())
	}
}

// digest identifies what the process is started with, apart from the executable. It is
// recorded with what is in quarantine, so it must not change.
func (s Spec) digest(environment string) string {
	all := []any{environment}
	for _, setting := range s.fixed() {
		switch setting {
		case &s.Options:
			setting = cmp.Or(string(s.Options), "{}")
		case &s.User:
			if s.User == "" { // what was quarantined before users existed stays quarantined
				continue
			}
		}
		all = append(all, setting)
	}
	raw, _ := json.Marshal(all) // cannot fail
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// Config configures a Host.
type Config struct {
	Plugins []Spec
	// StoreDir holds the copies that are executed. It is created if missing.
	StoreDir string
	// RunDir is where the directory for sockets is created. Keep it short, because the
	// length of a socket's path is limited. Default: the system's directory for temporary
	// files.
	RunDir string
	// Environment is passed to the plugins: development, test, production, …
	Environment string
	// NextGeneration returns a number that no host has used before, from a database
	// sequence.
	NextGeneration func(context.Context) (uint64, error)

	// Options resolves the references to secrets in the options of plugins; nil: there
	// are none.
	Options Options

	// Journal records what happens to plugins; nil: nothing is recorded.
	Journal journal.Journal

	// StartParallel is how many plugins are started at once; default 4.
	StartParallel int
	Restart       Restart
	// HealthInterval is the time between health checks; default 10s. HealthTimeout limits
	// each one; default 5s. A plugin that misses three in a row is killed.
	HealthInterval, HealthTimeout time.Duration

	// patience is the minimum time to wait for answers, whatever their limit. Tests set
	// it, because their machine may stall.
	patience time.Duration
}

// Restart configures how plugins are restarted.
type Restart struct {
	// Base and Cap bound the wait before the n-th consecutive start: random between zero
	// and Base·2ⁿ, at most Cap. Default 100ms and 30s.
	Base, Cap time.Duration
	// Exits within Window open the breaker: the plugin rests for Open, then gets one try.
	// Default 5 in 60s, 60s.
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

// withDefaults replaces zero values by defaults and returns all errors.
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
	if c.Journal == nil {
		c.Journal = nowhere{}
	}
	if c.Options == nil {
		c.Options = verbatim{}
	}
	var err error
	c.Plugins, err = completed(c.Plugins)
	return c, errors.Join(append(errs, err)...)
}

// completed returns specifications with defaults for zero values, and all errors in them.
func completed(given []Spec) ([]Spec, error) {
	var errs []error
	specs := make([]Spec, len(given))
	seen := make(map[SlotID]bool, len(specs))
	for i, s := range given {
		setDefault(&s.MaxInFlight, 64)
		setDefault(&s.StartTimeout, 10*time.Second)
		setDefault(&s.MaxFiles, 256+4*uint64(max(s.MaxInFlight, 0)))
		setDefault(&s.DrainTimeout, 30*time.Second)
		setDefault(&s.RollbackWindow, 10*time.Minute)
		s.Rollout = s.Rollout.withDefaults(s.Kind)
		errs = append(errs, s.check())
		if seen[s.ID()] {
			errs = append(errs, fmt.Errorf("plugin %q is configured twice", s.Name))
		}
		seen[s.ID()] = true
		specs[i] = s
	}
	return specs, errors.Join(errs...)
}

func (s Spec) check() error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("plugin %q: "+format, append([]any{s.Name}, args...)...))
	}
	if !slices.Contains(kinds, s.Kind) {
		wrong("kind %q is not one of %s", s.Kind, strings.Join(kinds, ", "))
	}
	if !pluginName.MatchString(s.Name) {
		wrong("the name must match %s", pluginName)
	}
	switch {
	case s.Path == "" && s.SHA256 == "":
		wrong("neither path nor sha256 is set")
	case s.Path != "" && !filepath.IsAbs(s.Path):
		wrong("path %q is not absolute", s.Path)
	}
	if err := s.Rollout.check(); err != nil {
		wrong("%w", err)
	}
	if s.Rollout.Strategy == ShadowFirst && s.Kind == KindHandler {
		wrong("rollout strategy shadow+canary cannot be used for handlers, because it would run steps twice; use canary")
	}
	if s.MaxInFlight < 1 || s.MaxInFlight > maxWindow {
		wrong("max_in_flight %d is not between 1 and %d", s.MaxInFlight, maxWindow)
	}
	if l := s.Limits; l.Memory < 0 || l.Processes < 0 || l.CPUs < 0 {
		wrong("a limit is negative")
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
