package core

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/api"
	"github.com/tasker-systems/tasker-host/host/internal/cli"
	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/process"
	"github.com/tasker-systems/tasker-host/host/internal/pluginwatch"
	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/migrations/pgcluster"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// The settings of a plugin in plugins.toml reach the plugin host.
func TestSettingsOfPluginsReachThePluginHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "plugins.toml")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "x"), nil, 0o700))
	sum := "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	require.NoError(t, os.WriteFile(file, []byte(`
[plugin.handler.x]
path = "x"
sha256 = "`+sum+`"
required = false
user = "somebody:some"
max_in_flight = 17
start_timeout = "18s"
drain_timeout = "19s"
rollback_window = "20s"
memory_limit = "21MiB"
max_memory = "27MiB"
max_processes = 28
max_cpus = 2.5
max_log_lines = 22
max_log_bytes = "23KiB"
rollout = { strategy = "canary", steps = [24, 25], hold = "26s", latency_floor = "29ms" }
`), 0o600))
	all, err := config.LoadPlugins(file, "test")
	require.NoError(t, err)
	s := pluginSpec(&all.Specs[0])
	require.Equal(t, filepath.Join(dir, "x"), s.Path)
	require.Equal(t, sum, s.SHA256)
	require.False(t, s.Required)
	require.Equal(t, "somebody:some", s.User)
	require.Equal(t, 17, s.MaxInFlight)
	require.Equal(t, 18*time.Second, s.StartTimeout)
	require.Equal(t, 19*time.Second, s.DrainTimeout)
	require.Equal(t, 20*time.Second, s.RollbackWindow)
	require.EqualValues(t, 21<<20, s.MemoryLimit)
	require.Equal(t, process.Limits{Memory: 27 << 20, Processes: 28, CPUs: 2.5}, s.Limits)
	require.Equal(t, process.LogLimits{LinesPerSecond: 22, BytesPerSecond: 23 << 10}, s.LogLimits)
	require.Equal(t, pluginhost.CanarySteps, s.Rollout.Strategy)
	require.Equal(t, []int{24, 25}, s.Rollout.Steps)
	require.Equal(t, 26*time.Second, s.Rollout.Hold)
	require.Equal(t, 29*time.Millisecond, s.Rollout.LatencyFloor)
}

// A swap of a plugin that is not in plugins.toml is not found, and errors in a text that
// may become plugins.toml do not refer to the file.
func TestFaultsOfPlugins(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, pluginFault(fmt.Errorf("handler/a: plugins.toml %w", pluginwatch.ErrNotNamed)), api.ErrNotFound)
	file := []config.Problem{{Source: "/p/plugins.toml", Line: 4, Message: "x"}, {Source: "/p/plugins.lock", Line: 5, Message: "y"}}
	fault, ok := errors.AsType[*api.Fault](filesFault(inText(&config.Error{Problems: file}, "/p/plugins.toml")))
	require.True(t, ok)
	require.Equal(t, []api.Issue{{Location: "text:4", Detail: "x"}, {Location: "/p/plugins.lock:5", Detail: "y"}}, fault.Issues)
	require.Equal(t, "/p/plugins.toml", file[0].Source, "the error itself stays")
	for code, err := range map[string]error{
		api.CodeUnavailable + " 1": pluginFault(fmt.Errorf("swap: %w", pluginhost.ErrNotRecorded)),
		api.CodeUnavailable + " 2": pluginFault(fmt.Errorf("release: %w", pluginhost.ErrStopping)),
		api.CodeUnavailable + " 3": filesFault(fmt.Errorf("apply plugins: %w", pluginhost.ErrStopping)),
		api.CodeStateForbidden:     filesFault(fmt.Errorf("change plugins: %w: stopped", errNotInState)),
	} {
		fault, ok := errors.AsType[*api.Fault](err)
		require.True(t, ok)
		require.Equal(t, strings.Fields(code)[0], fault.Code)
	}
}

// tasker migrate status does not accept a schema that tasker up refuses.
func TestStatusOfASchemaOfOtherFiles(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	report, err := schemaReport(t.Context(), db.Config().ConnConfig)
	require.NoError(t, err)
	require.Equal(t, report.Latest, report.Version)
	_, err = db.Exec(t.Context(), "update tasker_schema_migrations set checksum = 'another' where version = 20")
	require.NoError(t, err)
	_, err = schemaReport(t.Context(), db.Config().ConnConfig)
	require.ErrorContains(t, err, "the schema was created by other versions of 00020_tables.sql")
}

// An error that stops a command says what to do about it.
func TestErrorsNameTheFix(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	cfg := &config.Config{Environment: "test"}
	cfg.Database.URL, cfg.Database.ConnectTimeout = config.NewSecret(db.Config().ConnString()), time.Minute
	advice := func() string { c := databaseCheck(t.Context(), cfg); return c.Message + "; " + c.Fix }
	_, err := db.Exec(t.Context(), "delete from tasker_schema_migrations where version > 20")
	require.NoError(t, err)
	require.Contains(t, advice(), "run tasker migrate")
	_, err = db.Exec(t.Context(), "insert into tasker_schema_migrations (version, name, checksum) values (9999, 'x', 'x')")
	require.NoError(t, err)
	require.Contains(t, advice(), "use a newer program")
	require.NotContains(t, advice(), "tasker migrate", "which refuses it")

	here := db.Config().ConnConfig
	require.EqualError(t, withFix(here, fmt.Errorf("migrate: %w", &pgconn.PgError{Code: "42501", Severity: "ERROR", Message: "no"})),
		fmt.Sprintf("migrate: ERROR: no (SQLSTATE 42501); connect as the role that owns database %s and its contents, not as %s", here.Database, here.User))
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, nobody.Close())
	_, err = migrate(t.Context(), cli.MigrateOptions{Config: config.Options{Environ: []string{"HOME=" + t.TempDir(), "DATABASE_URL=postgres://x@" + nobody.Addr().String() + "/x"}}})
	require.ErrorContains(t, err, "no connection to "+nobody.Addr().String()+" as x: ")
	require.ErrorContains(t, err, "; start the server, or correct DATABASE_URL")

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.ErrorContains(t, makeStateDir(filepath.Join(file, "tasker")), "set system.state_dir")
}

// What root creates with a strict umask must let the private server's account through;
// what exists stays as it is. Not parallel: the umask is the whole process's.
func TestStateDirIsOpenWhateverTheUmask(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	old := syscall.Umask(0o077)
	err := makeStateDir(filepath.Join(dir, "a", "b"))
	syscall.Umask(old)
	require.NoError(t, err)
	for name, mode := range map[string]os.FileMode{"a": 0o711, "a/b": 0o711, ".": 0o700} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), name)
	}
}

// Users of a private server may not know where it is.
func TestSchemaOfAPrivateServerIsLocated(t *testing.T) {
	t.Parallel()
	private := &database{cluster: &pgcluster.Cluster{}, dir: "/state/postgres"}
	for _, err := range []error{&migrations.ChangedError{Names: []string{"a.sql"}}, &migrations.NewerError{Database: 200, Binary: 190}} {
		located := private.located(fmt.Errorf("migrate: %w", err))
		require.ErrorIs(t, located, err)
		require.ErrorContains(t, located, "keeps its data in /state/postgres: move that directory away")
		require.Equal(t, err, (&database{}).located(err), "of a server of yours")
	}
	pending := &migrations.PendingError{Database: 180, Binary: 190}
	require.Equal(t, error(pending), private.located(pending))
	require.NoError(t, private.located(nil))
}

// database.embedded: where the private server's programs and its data are, and whether a
// host may install the programs.
func TestKeysOfThePrivateServer(t *testing.T) {
	t.Parallel()
	binaries, err := pgcluster.FindBinaries("", 0)
	require.NoError(t, err)
	state, err := os.MkdirTemp("", "tasker") // the server's account has no access to t.TempDir
	require.NoError(t, err)
	require.NoError(t, os.Chmod(state, 0o711))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(state)) })
	open := func(more map[string]string) (*database, error) {
		values := map[string]string{"system.state_dir": state, "database.embedded.state_dir": filepath.Join(state, "data")}
		for k, v := range more {
			values[k] = v
		}
		cfg, err := config.Load(config.Options{Environ: []string{"HOME=/home/you"}, Overrides: values})
		require.NoError(t, err)
		return openDatabase(t.Context(), cfg, hclog.NewNullLogger())
	}
	db, err := open(map[string]string{"database.embedded.bin_dir": binaries.Dir})
	require.NoError(t, err)
	require.NoError(t, db.stop(t.Context()))
	require.DirExists(t, filepath.Join(state, "data"), "database.embedded.state_dir")

	held, err := open(nil)
	require.NoError(t, err)
	_, err = open(nil)
	require.ErrorContains(t, err, fmt.Sprintf("process %d manages %s; stop that host first (tasker shutdown), or give", os.Getpid(), filepath.Join(state, "data")))
	require.NoError(t, held.stop(t.Context()))

	_, err = open(map[string]string{"database.embedded.bin_dir": t.TempDir()})
	require.ErrorContains(t, err, "look for PostgreSQL in the configured directory", "database.embedded.bin_dir")

	cfg, err := config.Load(config.Options{Environ: []string{"HOME=/home/you", "DATABASE_URL=garbage"}})
	require.NoError(t, err)
	_, err = openDatabase(t.Context(), cfg, hclog.NewNullLogger())
	require.ErrorContains(t, err, "environment variable DATABASE_URL: database.url: cannot parse `garbage`")
	require.ErrorContains(t, err, "want postgres://USER@HOST/DATABASE")

	none := fmt.Errorf("start: %w", pgcluster.ErrNoBinaries)
	require.True(t, mayInstall(config.Embedded{Install: true}, none), "database.embedded.install")
	require.False(t, mayInstall(config.Embedded{Install: false}, none))
	require.False(t, mayInstall(config.Embedded{Install: true}, errors.New("another")))
	require.False(t, mayInstall(config.Embedded{Install: true}, nil))
}

// The duration of a finalization claim comes from the configuration.
func TestFinalizationClaim(t *testing.T) {
	t.Parallel()
	b := start(t, "orchestration.finalization_claim = \"10m\"\n")
	_, _, err := b.api.ApplyTemplate(t.Context(), "three.yaml", []byte(threeSteps))
	require.NoError(t, err)
	task, _, err := b.api.Submit(t.Context(), client.Submission{Namespace: "reload", Name: "three", Version: "1.0.0", Context: json.RawMessage("{}")})
	require.NoError(t, err)
	steps, err := b.api.Steps(t.Context(), task.UUID)
	require.NoError(t, err)
	_, err = b.api.ResolveStep(t.Context(), steps[0].UUID, json.RawMessage("1"), client.Operator{})
	require.NoError(t, err)
	id, err := vocab.ParseUUID(task.UUID)
	require.NoError(t, err)
	claim, err := b.newFinalizer().Claim(t.Context(), id)
	require.NoError(t, err)
	require.True(t, claim.Claimed)
	require.True(t, scalar[bool](t, b, "select finalize_until between clock_timestamp() + interval '1 min' and clock_timestamp() + interval '10 min' from tasker_tasks"),
		"orchestration.finalization_claim")
}

// A namespace whose queue is an inbox is reserved; an inbox need not look like one.
func TestReservedNamespaces(t *testing.T) {
	t.Parallel()
	var cfg config.Config
	cfg.Orchestration.TaskRequestsQueue, cfg.Orchestration.StepResultsQueue = "task_requests_queue", "orchestration_step_results"
	require.Equal(t, []string{"task_requests"}, new(Core).backendConfig(&cfg).Reserved)
}
