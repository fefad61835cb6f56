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
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// Part is one kind of work that a plugin offers. [Handlers] makes one.
type Part struct {
	name, version string
	settings      settings
	handlers      map[string]handler.Handler
}

// service is what parts of one kind become in a running plugin. It has more than a few
// methods because it mirrors the Plugin service of the contract, which asks the
// same of every kind.
type service interface {
	slots() []*pluginv1.Slot
	register(grpc.ServiceRegistrar)
	configure(maxInFlight int) // before any work; 0: no limit
	inFlight() int
	drain(context.Context) int // refuse new work, wait for the rest; what is left
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

// MaxInFlight says how many steps the plugin takes at once; the host sends no
// more and may send fewer. Without it the host decides.
func MaxInFlight(n int) Option {
	return func(s *settings) {
		if n < 1 {
			s.problems = append(s.problems, fmt.Errorf("max in flight is %d: want at least 1", n))
		}
		s.maxInFlight = n
	}
}

// SelfTest has the plugin try itself out before it gets work: reach what it
// depends on, run a known example. An error keeps the plugin from serving.
// `./plugin selftest` runs it by hand.
func SelfTest(test func(ctx context.Context) error) Option {
	return func(s *settings) { s.selfTest = test }
}

// Logger replaces the plugin's logger, which writes JSON lines of level info
// and above to stderr, where the host reads them.
func Logger(l hclog.Logger) Option {
	return func(s *settings) { s.logger = l }
}

var (
	pluginName  = regexp.MustCompile(`^[a-z][a-z0-9_\-]{0,62}$`)
	handlerName = regexp.MustCompile(`^[a-z][a-z0-9_.\-]{0,127}$`)
	semver      = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.\-]+)?(\+[0-9A-Za-z.\-]+)?$`)
)

// Handlers is the part that runs steps. The keys of handlers are the names that
// templates use: lower-case letters, digits, and _ . - inside, at most 128
// characters. The name is the plugin's, the version its semantic version.
func Handlers(name, version string, handlers map[string]handler.Handler, opts ...Option) Part {
	p := Part{name: name, version: version, handlers: maps.Clone(handlers)}
	for _, opt := range opts {
		opt(&p.settings)
	}
	return p
}

func checkHandlers(handlers map[string]handler.Handler) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(handlers)) {
		if !handlerName.MatchString(name) {
			problems = append(problems, fmt.Errorf("handler name %q: want %s", name, handlerName))
		}
		if handlers[name] == nil {
			problems = append(problems, fmt.Errorf("handler %s is nil", name))
		}
	}
	return errors.Join(problems...)
}
