package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/health"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Part is one kind of work that a plugin offers. [Handlers], [Scaling] and [Health] return
// parts.
type Part struct {
	name, version string
	settings      settings
	handlers      map[string]handler.Handler
	algorithms    map[string]scaler.New
	checks        map[string]health.Service
}

// service is what the parts of one kind become in a running plugin. It has more than a few
// methods because it mirrors the Plugin service of the contract, which requires the same of
// every kind.
type service interface {
	slots() []*pluginv1.Slot
	register(grpc.ServiceRegistrar)
	configure(maxInFlight int) // before any work; 0: no limit
	inFlight() int
	drain(context.Context) int // refuse new work, wait for the rest; returns what is left
	cancel(cause error)        // end the contexts of what is left
	close()                    // end the streams once their outcomes are sent
	collect(io.Writer)
}

// Option changes how a plugin is served.
type Option func(*settings)

type settings struct {
	maxInFlight int
	options     *options
	selfTest    func(context.Context) error
	logger      hclog.Logger
	problems    []error
}

// MaxInFlight limits how many steps the plugin takes at once. The host sends no more and may
// send fewer. Without this option the host decides.
func MaxInFlight(n int) Option {
	return func(s *settings) {
		if n < 1 {
			s.problems = append(s.problems, fmt.Errorf("max in flight is %d: want at least 1", n))
		}
		s.maxInFlight = n
	}
}

// SelfTest sets a function with which the plugin tests itself before it gets work, for example
// by reaching its dependencies or running a known example. If it returns an error, the plugin
// does not serve. `./plugin selftest` runs it by hand.
func SelfTest(test func(ctx context.Context) error) Option {
	return func(s *settings) { s.selfTest = test }
}

// Logger replaces the plugin's logger. The default writes JSON lines of level info and above to
// stderr, where the host reads them.
func Logger(l hclog.Logger) Option {
	return func(s *settings) { s.logger = l }
}

var (
	pluginName = regexp.MustCompile(`^[a-z][a-z0-9_\-]{0,62}$`)
	slotName   = regexp.MustCompile(`^[a-z][a-z0-9_.\-]{0,127}$`)
	semver     = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.\-]+)?(\+[0-9A-Za-z.\-]+)?$`)
)

// Handlers returns the part that runs steps. The keys of handlers are the names that templates
// use: lower-case letters, digits and, inside a name, _ . -, at most 128 characters. The
// arguments name and version are the plugin's name and its semantic version.
func Handlers(name, version string, handlers map[string]handler.Handler, opts ...Option) Part {
	return newPart(Part{name: name, version: version, handlers: maps.Clone(handlers)}, opts)
}

// Scaling returns the part that decides how large pools should be. The keys of algorithms are
// their names, under the same rules as the names of handlers. Each pool gets its own scaler,
// made for its first decision. The arguments name and version are as for [Handlers].
func Scaling(name, version string, algorithms map[string]scaler.New, opts ...Option) Part {
	return newPart(Part{name: name, version: version, algorithms: maps.Clone(algorithms)}, opts)
}

// Health returns the part that checks how things are doing and reports what has happened. The
// keys of services are their names, under the same rules as the names of handlers. The
// arguments name and version are as for [Handlers].
func Health(name, version string, services map[string]health.Service, opts ...Option) Part {
	return newPart(Part{name: name, version: version, checks: maps.Clone(services)}, opts)
}

func newPart(p Part, opts []Option) Part {
	for _, opt := range opts {
		opt(&p.settings)
	}
	return p
}

// merge adds the slots of one kind to those of earlier parts, and returns what is wrong with
// them.
func merge[T any](kind string, into, slots map[string]T, missing func(T) bool) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(slots)) {
		if _, twice := into[name]; twice {
			problems = append(problems, fmt.Errorf("%s %s is given twice", kind, name))
		}
		if !slotName.MatchString(name) {
			problems = append(problems, fmt.Errorf("%s name %q: want %s", kind, name, slotName))
		}
		if missing(slots[name]) {
			problems = append(problems, fmt.Errorf("%s %s is nil", kind, name))
		}
		into[name] = slots[name]
	}
	return errors.Join(problems...)
}
