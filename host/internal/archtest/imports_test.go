package archtest

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rule says what the packages of a room may import.
type rule struct {
	room    string   // a pattern; the first that names a package counts
	imports []string // rooms of ours its code may import, beside itself
	tests   []string // … and its tests too
	reaches []string // modules and packages that its code must not reach, however far away
	direct  []string // packages of the standard library that its code must not import
}

const (
	pgx        = "github.com/jackc/pgx/v5"
	koanf      = "github.com/knadh/koanf"
	prometheus = "github.com/prometheus/client_golang"
	goPlugin   = "github.com/hashicorp/go-plugin"
	grpc       = "google.golang.org/grpc"
)

// The input and output that rooms of pure thinking do without.
var inputOutput = []string{"net", "net/http", "os", "os/exec", "database/sql", "io/ioutil"}

// rules is the table of design and house style: arrows point one way. A new
// package needs a row.
var rules = []rule{
	// What plugin authors import.
	{room: "sdk/vocab", reaches: []string{"*"}},
	{room: "sdk/handler", imports: []string{"sdk/vocab"}, reaches: []string{goPlugin, grpc, pgx, koanf, prometheus}},
	{room: "sdk/scaler", imports: []string{"sdk/vocab"}, reaches: []string{goPlugin, grpc, pgx, koanf, prometheus}},
	{room: "sdk/health", imports: []string{"sdk/vocab"}, reaches: []string{goPlugin, grpc, pgx, koanf, prometheus}},
	{room: "sdk/task", imports: []string{"sdk/vocab"}, reaches: []string{"*"}, direct: inputOutput},
	{room: "sdk/client", imports: []string{"sdk/vocab", "sdk/task"}, reaches: []string{"*"}},
	{room: "sdk/**", imports: []string{"sdk/**"}, reaches: []string{pgx, koanf, prometheus}},

	// Pure rooms and plugins.
	{room: "scaling/**", imports: []string{"sdk/vocab", "sdk/scaler", "scaling/**"}, reaches: []string{pgx, goPlugin, grpc, koanf, prometheus}, direct: inputOutput},
	{room: "plugins/**", imports: []string{"sdk/**", "scaling/**", "plugins/**"}, reaches: []string{pgx, koanf}},

	{room: "internal/spelling", reaches: []string{"*"}, direct: inputOutput},
	{room: "internal/leaks", reaches: []string{pgx, goPlugin, grpc, koanf, prometheus}},

	// The libraries of the host at top level.
	{room: "config", imports: []string{"internal/spelling"}, reaches: []string{pgx, goPlugin, grpc}},
	{room: "migrations/**", imports: []string{"migrations/**"}, tests: []string{"sdk/vocab"}, reaches: []string{goPlugin, grpc, koanf}},
	{room: "finalizer", imports: []string{"sdk/vocab"}, tests: []string{"migrations/**"}, reaches: []string{goPlugin, grpc, koanf}},

	// The trusted core. Leaves first.
	{room: "host/internal/archtest", tests: []string{"config", "sdk/vocab"}},
	{room: "host/internal/payload", reaches: []string{pgx, goPlugin, grpc, koanf}, direct: inputOutput},
	{room: "host/internal/schema", imports: []string{"host/internal/payload"}, reaches: []string{pgx, goPlugin, grpc, koanf}, direct: inputOutput},
	{room: "host/internal/readmodel", imports: []string{"sdk/vocab", "sdk/task"}, reaches: []string{pgx, goPlugin, grpc, koanf, prometheus}, direct: inputOutput},
	{room: "host/internal/workflow", imports: []string{"sdk/vocab", "host/internal/payload", "host/internal/schema", "internal/spelling"}, reaches: []string{pgx, goPlugin, grpc, koanf, prometheus}, direct: inputOutput},
	{room: "host/internal/auth", reaches: []string{pgx, goPlugin, grpc, koanf, prometheus}},
	{room: "host/internal/cache", reaches: []string{pgx, goPlugin, grpc, koanf}},
	{room: "host/internal/telemetry", reaches: []string{pgx, goPlugin, grpc, koanf}},
	{room: "host/internal/tracing", reaches: []string{pgx, goPlugin, koanf}},
	{room: "host/internal/lifecycle/**", imports: []string{"host/internal/lifecycle"}, tests: []string{"host/internal/lifecycle/**"}, reaches: []string{pgx, goPlugin, grpc, koanf}},
	{room: "host/internal/opstate", imports: []string{"host/internal/lifecycle"}, reaches: []string{pgx, goPlugin, grpc, koanf}},
	{room: "host/internal/systemd", reaches: []string{pgx, goPlugin, grpc, koanf, prometheus}},
	{room: "deploy", tests: []string{"config"}, reaches: []string{"*"}},
	{room: "host/internal/breaker", imports: []string{"host/internal/lifecycle"}, reaches: []string{pgx, goPlugin, grpc, koanf}},
	{room: "host/internal/pool", imports: []string{"sdk/vocab", "sdk/scaler", "scaling", "host/internal/lifecycle"}, reaches: []string{pgx, goPlugin, grpc, koanf, prometheus}, direct: inputOutput},
	{room: "host/internal/coordinator", imports: []string{"sdk/vocab", "sdk/scaler", "scaling/**", "host/internal/pool", "host/internal/opstate", "host/internal/lifecycle"}, tests: []string{"plugins/test/**"}, reaches: []string{pgx, goPlugin, grpc, koanf}},
	{room: "host/internal/reporters", imports: []string{"sdk/**", "host/internal/health", "host/internal/opstate", "host/internal/pluginhost"}, reaches: []string{pgx, koanf}},
	{room: "host/internal/health", imports: []string{"host/internal/lifecycle", "host/internal/opstate"}, reaches: []string{goPlugin, grpc, koanf}},

	// Its parts. They receive values and small interfaces; only core builds them.
	{room: "host/internal/pgmq", imports: []string{"sdk/vocab", "migrations/**", "host/internal/breaker"}, reaches: []string{goPlugin, grpc, koanf}},
	{room: "host/internal/pluginhost/journal", reaches: []string{pgx, goPlugin, grpc, koanf, prometheus}, direct: inputOutput},
	{room: "host/internal/store", imports: []string{"sdk/vocab", "migrations", "migrations/pgsession", "finalizer", "host/internal/auth", "host/internal/cache", "host/internal/pluginhost/journal", "host/internal/workflow", "host/internal/payload", "host/internal/readmodel", "host/internal/pgmq"}, tests: []string{"migrations/**"}, reaches: []string{goPlugin, grpc, koanf}},
	{room: "host/internal/events", imports: []string{"host/internal/readmodel", "host/internal/store"}, tests: []string{"host/internal/lifecycle", "migrations/**"}, reaches: []string{goPlugin, grpc, koanf}},
	{room: "host/internal/pluginset", imports: []string{"config", "host/internal/readmodel", "host/internal/pluginhost/artifact", "host/internal/pluginhost/runas"}, reaches: []string{pgx, goPlugin, grpc, prometheus}},
	{room: "host/internal/pluginwatch", imports: []string{"config", "host/internal/lifecycle", "host/internal/pluginset"}, reaches: []string{pgx, goPlugin, grpc, prometheus}},
	{room: "host/internal/pluginhost/**", imports: []string{"sdk/**", "host/internal/pluginhost/**", "host/internal/lifecycle", "host/internal/breaker", "host/internal/payload", "host/internal/schema"}, reaches: []string{pgx, koanf}},
	{
		room: "host/internal/pipeline",
		imports: []string{
			"sdk/**", "finalizer", "host/internal/workflow", "host/internal/payload", "host/internal/store", "host/internal/pgmq",
			"host/internal/pluginhost", "host/internal/lifecycle", "host/internal/opstate", "host/internal/breaker", "host/internal/pool",
			"host/internal/readmodel", "scaling",
		},
		tests: []string{"migrations/**"}, reaches: []string{koanf},
	},
	{
		room: "host/internal/backend",
		imports: []string{
			"sdk/vocab", "host/internal/api", "host/internal/auth", "host/internal/readmodel", "host/internal/workflow", "host/internal/payload",
			"host/internal/store", "host/internal/pipeline", "host/internal/pluginhost", "host/internal/opstate", "host/internal/health", "host/internal/events", "migrations",
		},
		tests: []string{"migrations/**", "finalizer", "host/internal/pool"}, reaches: []string{koanf},
	},
	{
		room:    "host/internal/bench",
		imports: []string{"sdk/vocab", "host/internal/pipeline", "host/internal/readmodel", "host/internal/workflow"},
		tests:   []string{"sdk/**", "migrations/**", "finalizer", "plugins/examples/**", "host/internal/**"},
	},
	{room: "host/internal/workercheck", imports: []string{"sdk/vocab", "host/internal/client", "host/internal/readmodel"}, reaches: []string{goPlugin, grpc, koanf}},
	{room: "host/internal/api/**", imports: []string{"sdk/vocab", "sdk/task", "host/internal/auth", "host/internal/readmodel", "host/internal/payload", "host/internal/opstate", "host/internal/lifecycle", "host/internal/api/**"}, reaches: []string{pgx, goPlugin, koanf}},
	{room: "host/internal/client", imports: []string{"sdk/vocab", "sdk/task", "sdk/client", "host/internal/readmodel"}, tests: []string{"host/internal/api/**"}, reaches: []string{pgx, goPlugin, koanf}},
	{
		room: "host/internal/cli/**",
		imports: []string{
			"sdk/vocab", "sdk/task", "sdk/client", "config", "host/internal/client", "host/internal/readmodel", "host/internal/workflow",
			"internal/spelling", "host/internal/payload", "host/internal/schema", "host/internal/pluginset", "host/internal/telemetry", "host/internal/cli/**", "plugins/examples/**",
			"sdk/tryout", "sdk/wire", "sdk/proto/**", // to try plugins without a host
			"sdk/scaler", "scaling/**", // to try algorithms without a host
		},
		tests: []string{"host/internal/api/**", "migrations/**"},
	},
	{
		room:    "host/internal/core/**",
		imports: []string{"sdk/**", "config", "migrations/**", "finalizer", "scaling/**", "plugins/examples/**", "host/internal/**"},
		tests:   []string{"plugins/test/**"},
	},
	{room: "host/internal/e2e/**", imports: []string{"sdk/**", "config", "migrations/**", "finalizer", "plugins/examples/**", "plugins/test/**", "host/internal/**"}},
	{room: "host", imports: []string{"host/internal/cli", "host/internal/core"}},
}

// forTests is what every test may import beside its room's own imports.
var forTests = []string{"internal/leaks", "sdk/plugintest", "host/internal/lifecycle/lifecycletest"}

func ruleFor(path string) (rule, bool) {
	for _, r := range rules {
		if matches(r.room, path) {
			return r, true
		}
	}
	return rule{}, false
}

func TestEveryPackageHasARoom(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.Error != nil {
			t.Errorf("%s: %s", p.room(), p.Error.Err)
		}
		if _, ok := ruleFor(p.room()); !ok {
			t.Errorf("%s: no row in the table of imports names this package", p.room())
		}
	}
}

func TestArrowsPointOneWay(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		r, ok := ruleFor(p.room())
		if !ok {
			continue
		}
		code := append([]string{p.room()}, r.imports...)
		for _, i := range p.Imports {
			if ours(i) && !anyMatches(code, room(i)) {
				t.Errorf("%s must not import %s", p.room(), room(i))
			}
		}
		tests := slices.Concat(code, r.tests, forTests)
		for _, i := range slices.Concat(p.TestImports, p.XTestImports) {
			if ours(i) && !anyMatches(tests, room(i)) {
				t.Errorf("tests of %s must not import %s", p.room(), room(i))
			}
		}
	}
}

// The command line takes what needs the core as functions; main puts the two
// together.
func TestOnlyMainKnowsTheCore(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, i := range p.Imports {
			known := matches("host/internal/core/**", p.room()) || p.room() == "host"
			if ours(i) && matches("host/internal/core/**", room(i)) && !known {
				t.Errorf("%s must not import %s", p.room(), room(i))
			}
			if ours(i) && matches("host/internal/cli/**", room(i)) && !known && !matches("host/internal/cli/**", p.room()) {
				t.Errorf("%s must not import %s", p.room(), room(i))
			}
		}
	}
}

func TestWhatARoomMustNotReach(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		r, ok := ruleFor(p.room())
		if !ok {
			continue
		}
		for _, forbidden := range r.reaches {
			reached := slices.IndexFunc(p.Deps, func(dep string) bool { return reaches(forbidden, dep) })
			if reached >= 0 {
				t.Errorf("%s must not reach %s", p.room(), p.Deps[reached])
			}
		}
		for _, i := range p.Imports {
			if slices.Contains(r.direct, i) {
				t.Errorf("%s does no input and output: it must not import %s", p.room(), i)
			}
			if i == "github.com/stretchr/testify/assert" || i == "github.com/stretchr/testify/suite" {
				t.Errorf("%s imports %s", p.room(), i)
			}
		}
		for _, i := range slices.Concat(p.TestImports, p.XTestImports) {
			if i == "github.com/stretchr/testify/assert" || i == "github.com/stretchr/testify/suite" {
				t.Errorf("tests of %s import %s: use require alone", p.room(), i)
			}
		}
	}
}

// reaches reports whether a dependency is a forbidden one: of the module named,
// or, for "*", from outside the standard library and ours.
func reaches(forbidden, dep string) bool {
	if forbidden != "*" {
		return matches(forbidden+"/**", dep)
	}
	first, _, _ := strings.Cut(dep, "/")
	return strings.Contains(first, ".") && !ours(dep)
}

func anyMatches(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, path) })
}

func TestRowsAreFoundByTheirRoom(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"sdk": "sdk/**", "sdk/vocab": "sdk/vocab", "sdk/wire/deep": "sdk/**", "host": "host",
		"host/internal/api/apitest": "host/internal/api/**", "host/internal/unheard": "", "sdkx": "",
	} {
		r, ok := ruleFor(path)
		require.Equal(t, want != "", ok, path)
		require.Equal(t, want, r.room, path)
	}
}
