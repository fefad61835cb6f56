package e2e_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// exampleHost is a host with the plugins of the examples and of chaos, and the
// templates of the examples.
func exampleHost(t *testing.T, more ...string) *host {
	t.Helper()
	s := newSite(t, withPassword(t, pgtest.DSN(t)), more...)
	var plugins string
	for _, name := range []string{"arithmetic", "fulfillment", "chaos"} {
		plugins += pluginTable(name, filepath.Join(built, name), "")
	}
	s.plugins(t, plugins)
	h := s.up(t)
	for _, name := range []string{"arithmetic/templates/linear", "arithmetic/templates/diamond", "arithmetic/templates/tree", "arithmetic/templates/mixed_dag", "fulfillment/templates/process_order"} {
		applyExample(t, h, name+".yaml")
	}
	return h
}

// try is a command, its exit code, and words that it must print.
type try struct {
	args  string
	code  int
	words string // comma-separated
}

func (s *site) tryAll(t *testing.T, tries []try) {
	t.Helper()
	for _, x := range tries {
		r := s.tasker(t, strings.Fields(x.args)...)
		require.Equal(t, x.code, r.code, "tasker %s\n%s%s", x.args, r.out, r.err)
		for word := range strings.SplitSeq(x.words, ",") {
			require.Contains(t, r.out+r.err, word, "tasker %s", x.args)
		}
		requireClean(t, r.out+r.err)
		require.False(t, r.code != 0 && r.code != 3 && r.err == "", "tasker %s", x.args)
	}
}

// TestTwoTerminals: a host in one, its user in the other.
func TestTwoTerminals(t *testing.T) {
	t.Parallel()
	durable := pgtest.Cluster(t, map[string]string{"fsync": "on", "full_page_writes": "on"})
	s := newSite(t, withPassword(t, durable.DSN()))
	s.plugins(t, pluginTable("arithmetic", filepath.Join(built, "arithmetic"), "")+pluginTable("chaos", filepath.Join(built, "chaos"), ""))
	s.write(t, "mixed.yaml", string(example(t, "arithmetic/templates/mixed_dag.yaml")))
	s.write(t, "sleep.yaml", oneStep("sleep", "chaos.sleep", ""))
	s.write(t, "lonely.yaml", oneStep("lonely", "nobody.serves.this", ""))

	s.tryAll(t, []try{
		{"task list", 5, "tasker up"},
		{"template list", 5, "tasker up"},
		{"doctor", 0, "database,ok"},
		{"migrate status", 0, "schema"},
		{"migrate", 0, "schema"},
		{"version", 0, "tasker"},
		{"tsak list", 2, "task"},
		{"task submit", 2, "usage"},
		{"task submit mixed", 2, "NAMESPACE/NAME"},
	})
	h := s.up(t)
	s.tryAll(t, []try{
		{"template list", 0, ""},
		{"task list", 0, ""},
		{"template validate mixed.yaml", 0, "complex_dag_computation"},
		{"template list", 0, ""},
		{"template apply mixed.yaml", 0, "complex_dag_computation"},
		{"template apply mixed.yaml", 0, "complex_dag_computation"},
		{"template apply sleep.yaml", 0, "sleep"},
		{"template apply lonely.yaml", 0, "nobody.serves.this"},
		{"template list", 0, "complex_dag_computation,sleep,lonely"},
		{"template apply nowhere.yaml", 1, "nowhere.yaml"},
		{"doctor", 0, "durability,limbo,a host answers"},
		{"template show e2e/lonely", 0, "nobody.serves.this,nobody serves it"},
		{"task submit e2e/nothing", 4, "nothing"},
		{"task submit e2e/sleep@9.9.9", 4, "9.9.9"},
		{"task show 01890000-0000-7000-8000-000000000000", 4, "01890000"},
		{"task show hello", 2, "hello"},
		{"task cancel 01890000-0000-7000-8000-000000000000", 4, "01890000"},
		{"task list --state nonsense", 1, "state,in_progress"},
		{"task submit mixed_dag_workflow/complex_dag_computation --context {} --json", 1, "context_invalid,even_number"},
		{"task submit mixed_dag_workflow/complex_dag_computation --context {\"even_number\":12}", 1, "/context/even_number,10"},
		{"task submit mixed_dag_workflow/complex_dag_computation --context nonsense", 1, "JSON"},
		{"plugin list", 0, "arithmetic,chaos,serving"},
	})
	s.walkTasks(t)
	h.stop(t)
	require.NoFileExists(t, s.socket())
	requireClean(t, h.log.String())
	s.tryAll(t, []try{{"task list", 5, "tasker up"}})
}

// walkTasks follows tasks from submission to their end.
func (s *site) walkTasks(t *testing.T) {
	t.Helper()
	const big = "340282366920938463463374607431768211456"
	r := s.tasker(t, "task", "submit", "mixed_dag_workflow/complex_dag_computation", "--context", `{"even_number": 4}`, "--watch", "--json")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, big)

	r = s.taskerIn(t, `{"even_number": 4}`, "task", "submit", "mixed_dag_workflow/complex_dag_computation", "--input", "-", "--json")
	require.Zero(t, r.code, r.err)
	var task readmodel.Task
	require.NoError(t, json.Unmarshal([]byte(r.out), &task))
	require.Zero(t, s.tasker(t, "task", "watch", task.UUID).code)
	r = s.tasker(t, "task", "show", task.UUID, "--json")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, big)
	d := json.NewDecoder(strings.NewReader(r.out))
	d.UseNumber()
	var whole map[string]any
	require.NoError(t, d.Decode(&whole))
	require.Contains(t, fmt.Sprint(whole), big, "the number is a number, with every digit")
	s.tryAll(t, []try{
		{"task show " + task.UUID, 0, big + ",dag_finalize,complete"},
		{"task list --state complete", 0, task.UUID},
		{"task cancel " + task.UUID, 6, "complete"},
	})

	r = s.tasker(t, "task", "submit", "e2e/sleep", "--context", `{"MS": 60000}`, "--json", "--idempotency-key", "it's;drop-table-x--\"")
	require.Zero(t, r.code, r.err)
	require.NoError(t, json.Unmarshal([]byte(r.out), &task))
	s.tryAll(t, []try{
		{"task cancel " + task.UUID + " --reason enough", 0, "cancelled"},
		{"task watch " + task.UUID, 3, ""},
		{"task show " + task.UUID + " --history", 0, "cancelled,enough"},
	})
}

// TestNamesAreRefusedKindly: wherever a name may come from, an odd one is an
// error that says what is wrong, and nothing else happens.
func TestNamesAreRefusedKindly(t *testing.T) {
	t.Parallel()
	h := exampleHost(t)
	for name, odd := range map[string]string{
		"quotes":        `it's "quoted"`,
		"SQL":           `x'; drop table tasker_tasks; --`,
		"newline":       "two\nlines",
		"60 characters": strings.Repeat("n", 60),
		"capitals":      "Sleep",
		"umlaut":        "schläfer",
		"empty":         "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			quoted, err := json.Marshal(odd)
			require.NoError(t, err)
			for _, key := range []string{"namespace", "name", "step"} {
				values := map[string]string{"namespace": "e2e", "name": "odd", "step": "only", key: string(quoted)}
				src := fmt.Sprintf("namespace: %s\nname: %s\nversion: 1.0.0\nsteps:\n  - name: %s\n    handler: chaos.echo\n", values["namespace"], values["name"], values["step"])
				path := h.site.write(t, fmt.Sprintf("%s-%s.yaml", strings.ReplaceAll(name, " ", "-"), key), src)
				r := h.site.tasker(t, "template", "apply", path)
				if name == "60 characters" && key != "namespace" {
					require.Zero(t, r.code, r.err)
					continue
				}
				line := map[string]string{"namespace": ":1:", "name": ":2:", "step": ":5:"}[key]
				require.Equal(t, 1, r.code, r.out)
				require.Contains(t, r.err, filepath.Base(path)+line, "the place")
				requireClean(t, r.err)
			}
			if odd == "" || name == "60 characters" {
				return
			}
			r := h.site.tasker(t, "task", "submit", "e2e/"+odd)
			require.Equal(t, 1, r.code, r.err)
			require.Contains(t, r.err, "/name: expected string to be 1 to 63 lower-case letters")
			requireClean(t, r.err)
		})
	}
}

// TestMalformedTemplates: the place of every fault, as file:line:column.
func TestMalformedTemplates(t *testing.T) {
	t.Parallel()
	h := exampleHost(t)
	const head = "namespace: e2e\nname: bad\nversion: 1.0.0\nsteps:\n"
	for name, bad := range map[string]struct{ src, words string }{
		"tab":            {head + "\t- name: a\n", ":5"},
		"open quote":     {head + "  - name: \"a\n", ":5"},
		"unknown key":    {head + "  - name: a\n    handler: x\n    retries: 3\n", ":7:5,retries,retry"},
		"duplicate key":  {"name: a\nname: b\n", ":2"},
		"unknown parent": {head + "  - {name: a, handler: x, depends_on: [z]}\n", ":5,z"},
		"cycle":          {head + "  - {name: a, handler: x, depends_on: [b]}\n  - {name: b, handler: x, depends_on: [a]}\n", "a,b,cycle"},
		"twice":          {head + "  - {name: a, handler: x}\n  - {name: a, handler: x}\n", ":6"},
		"no steps":       {"namespace: e2e\nname: bad\nversion: 1.0.0\nsteps: []\n", ":4"},
		"bad version":    {"namespace: e2e\nname: bad\nversion: one\nsteps:\n  - {name: a, handler: x}\n", ":3"},
		"empty":          {"", "e"},
		"two faults":     {head + "  - {name: A, handler: x}\n  - {name: b, handler: x, timeout: soon}\n", ":5:,:6:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := h.site.write(t, strings.ReplaceAll(name, " ", "-")+".yaml", bad.src)
			for _, command := range []string{"validate", "apply"} {
				r := h.site.tasker(t, "template", command, path)
				require.Equal(t, 1, r.code, r.out)
				for word := range strings.SplitSeq(bad.words, ",") {
					require.Contains(t, r.err, word)
				}
				requireClean(t, r.err)
			}
		})
	}
	r := h.site.tasker(t, "template", "list")
	require.NotContains(t, r.out, "bad")
}

// TestDrain: a host that is told to stop lets what runs finish.
func TestDrain(t *testing.T) {
	t.Parallel()
	h := exampleHost(t)
	applyTemplate(t, h, oneStep("sleep", "chaos.sleep", ""))
	db := pgtest.Pool(t, databaseOf(t, h.site))
	running := submit(t, h, "e2e", "sleep", `{"MS": 8000}`) // less than the drain may take, and enough to be seen
	awaitStep(t, h, running, vocab.StepInProgress)
	h.stop(t)
	require.Equal(t, []string{"complete"}, column[string](t, db, "select t.state::text from tasker_tasks t where t.task_uuid = $1", running))
	require.Empty(t, processesOf(t, h.site.dir))
	require.Equal(t, []string{"stopped"}, column[string](t, db, "select h.state from tasker_hosts h"))
	requireClean(t, h.log.String())
}

// TestDrainEnds: orchestration.drain_timeout is how long what runs may go on, and
// emergency_timeout how long a plugin that does not care has left.
func TestDrainEnds(t *testing.T) {
	t.Parallel()
	h := exampleHost(t, "TASKER__ORCHESTRATION__DRAIN_TIMEOUT=100ms", "TASKER__ORCHESTRATION__EMERGENCY_TIMEOUT=2s") // half of it is less than the grace of a cancelled call
	applyTemplate(t, h, oneStep("hang", "chaos.hang", ""))
	db := pgtest.Pool(t, databaseOf(t, h.site))
	id := submit(t, h, "e2e", "hang", `{}`)
	awaitStep(t, h, id, vocab.StepInProgress)
	h.signal(t, syscall.SIGTERM)
	require.Equal(t, 9, h.await(t), "a step was cut off")
	require.Contains(t, h.log.String(), "the drain time is over; running steps are cancelled and given back")
	require.Contains(t, h.log.String(), "calls of plugins were cut short")
	require.Contains(t, h.log.String(), "not done within 1s, half of orchestration.emergency_timeout")
	require.Equal(t, []string{"enqueued 0"}, column[string](t, db, "select s.state || ' ' || s.attempts from tasker_workflow_steps s where s.task_uuid = $1", id))
	require.Empty(t, processesOf(t, h.site.dir))
}

// TestSecondSignal: what runs is cancelled at once, and its lease handed back.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	h := exampleHost(t)
	applyTemplate(t, h, oneStep("sleep", "chaos.sleep", ""))
	applyTemplate(t, h, oneStep("hang", "chaos.hang", ""))
	db := pgtest.Pool(t, databaseOf(t, h.site))
	ids := []string{submit(t, h, "e2e", "sleep", `{"MS": 600000}`), submit(t, h, "e2e", "hang", `{}`)}
	for _, id := range ids {
		awaitStep(t, h, id, vocab.StepInProgress)
	}
	began := time.Now()
	h.signal(t, syscall.SIGTERM)
	eventually(t, patience, "the host drains", func() bool {
		health, err := h.Ready(t.Context())
		return err == nil && health.State == "graceful_shutdown"
	})
	h.signal(t, syscall.SIGTERM)
	require.Equal(t, 9, h.await(t), "steps were cut off")
	require.Less(t, time.Since(began), 2*patience, "nobody waits until the step has slept")
	require.Equal(t, []string{"enqueued 0", "enqueued 0"}, column[string](t, db, `
select s.state || ' ' || s.attempts from tasker_workflow_steps s where s.task_uuid = any($1) order by s.task_uuid`, ids))
	require.Empty(t, processesOf(t, h.site.dir))
	requireClean(t, h.log.String())
}

func databaseOf(t *testing.T, s *site) string {
	t.Helper()
	for _, v := range s.env {
		if dsn, ok := strings.CutPrefix(v, "DATABASE_URL="); ok {
			return dsn
		}
	}
	t.Fatal("the site has no database of its own")
	return ""
}

// TestTwoHostsOneSocket: the second one is refused and does no harm.
func TestTwoHostsOneSocket(t *testing.T) {
	t.Parallel()
	h := exampleHost(t)
	second := h.site.start(t)
	require.Equal(t, 1, second.await(t))
	require.Contains(t, second.log.String(), h.site.socket())
	require.Equal(t, vocab.TaskComplete, runTask(t, h, "linear_workflow", "mathematical_sequence", `{"even_number": 2}`).State)
	h.stop(t)
}

// TestInterruptedWatch: the exit code of a command that a signal ended.
func TestInterruptedWatch(t *testing.T) {
	t.Parallel()
	h := exampleHost(t)
	applyTemplate(t, h, oneStep("sleep", "chaos.sleep", ""))
	id := submit(t, h, "e2e", "sleep", `{"MS": 60000}`)
	cmd := exec.Command(filepath.Join(built, "tasker"), "task", "watch", id)
	out := &output{}
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = h.site.env, h.site.dir, out, out
	require.NoError(t, launch(cmd))
	eventually(t, patience, "something is shown", func() bool { return out.String() != "" })
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.Error(t, cmd.Wait())
	require.Equal(t, 130, cmd.ProcessState.ExitCode(), out.String())
}
