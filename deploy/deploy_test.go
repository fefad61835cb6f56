package deploy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/config"
)

func read(t *testing.T, path string) string {
	t.Helper()
	src, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(src)
}

// load reads a configuration of production that files and variables make.
func load(t *testing.T, text string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	url := filepath.Join(dir, "uri")
	require.NoError(t, os.WriteFile(url, []byte("postgres://tasker@db/tasker"), 0o600))
	text = strings.ReplaceAll(text, "/etc/tasker-database/uri", url)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "host.toml"), []byte(text), 0o600))
	cfg, err := config.Load(config.Options{Environment: "production", Dir: dir, Environ: []string{"HOME=/home/you", "TASKER__DATABASE__URL_FILE=" + url}})
	require.NoError(t, err)
	return cfg
}

// TestUnit checks the unit with systemd's own eyes, and its times against the
// host's defaults.
func TestUnit(t *testing.T) {
	t.Parallel()
	unit := read(t, "systemd/tasker.service")
	set := func(key string) string {
		found := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(unit)
		require.NotNil(t, found, key)
		return found[1]
	}
	require.Equal(t, "notify", set("Type"))
	require.Equal(t, "9", set("SuccessExitStatus"))
	require.Contains(t, set("ExecReload"), "-HUP $MAINPID")
	require.True(t, strings.HasPrefix(set("ExecStart"), "/usr/local/bin/tasker up "))
	stop, err := time.ParseDuration(set("TimeoutStopSec"))
	require.NoError(t, err)
	o := load(t, "").Orchestration
	require.Greater(t, stop, o.DrainTimeout+o.EmergencyTimeout+10*time.Second, "it would be killed while it drains")
	watchdog, err := time.ParseDuration(set("WatchdogSec"))
	require.NoError(t, err)
	require.Positive(t, watchdog)

	// verify asks for executables and accounts that are not on this machine.
	dir := t.TempDir()
	here := strings.NewReplacer("/usr/local/bin/tasker", "/bin/true", "User=tasker", "User=root", "Group=tasker", "Group=root").Replace(unit)
	path := filepath.Join(dir, "tasker.service")
	require.NoError(t, os.WriteFile(path, []byte(here), 0o600))
	verify := func(path string) (string, error) {
		cmd := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := verify(path)
	require.NoError(t, err, "systemd-analyze (package systemd): %s", out)
	require.NotContains(t, out, "tasker.service", "it complains")

	wrong := filepath.Join(dir, "wrong.service")
	require.NoError(t, os.WriteFile(wrong, []byte(strings.Replace(here, "Type=notify", "Type=notify\nWatchdogSecs=1", 1)), 0o600))
	out, _ = verify(wrong)
	require.Contains(t, out, "wrong.service", "the check finds what is wrong")
}

// TestContainer: several stages, no root, plugins from outside, and the Go
// version of the module.
func TestContainer(t *testing.T) {
	t.Parallel()
	file := read(t, "container/Containerfile")
	stages := regexp.MustCompile(`(?m)^FROM (\S+)`).FindAllStringSubmatch(file, -1)
	require.Len(t, stages, 2)
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))[1]
	require.Contains(t, stages[0][1], "golang:"+version+"-")
	last := file[strings.LastIndex(file, "\nFROM "):]
	require.Regexp(t, `(?m)^USER [1-9]\d*:[1-9]\d*$`, last)
	require.Regexp(t, `(?m)^VOLUME \[.*"/plugins".*\]$`, last)
	require.Contains(t, last, `CMD ["up"`)
	require.Contains(t, last, "STOPSIGNAL SIGTERM")
	require.NotContains(t, last, "COPY --from=build /src")
	for _, key := range regexp.MustCompile(`TASKER__([A-Z_]+)=`).FindAllStringSubmatch(file, -1) {
		_, known := load(t, "").Origin(strings.ToLower(strings.Replace(key[1], "__", ".", 1)))
		require.True(t, known, key[1])
	}
}

// The manifests as far as we use them. They are decoded strictly: what is not
// here, a misspelt key above all, is an error.
type (
	metadata struct {
		Name   string
		Labels map[string]string
	}
	selector struct {
		MatchLabels map[string]string `yaml:"matchLabels"`
	}
	probe struct {
		HTTPGet struct {
			Path, Port, Scheme string
		} `yaml:"httpGet"`
		PeriodSeconds    int `yaml:"periodSeconds"`
		TimeoutSeconds   int `yaml:"timeoutSeconds"`
		FailureThreshold int `yaml:"failureThreshold"`
	}
	resources struct {
		Requests, Limits map[string]string
	}
	container struct {
		Name, Image string
		Args        []string
		Ports       []struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
		}
		StartupProbe   probe `yaml:"startupProbe"`
		LivenessProbe  probe `yaml:"livenessProbe"`
		ReadinessProbe probe `yaml:"readinessProbe"`
		Lifecycle      struct {
			PreStop struct {
				Exec struct{ Command []string }
			} `yaml:"preStop"`
		}
		Resources       resources
		SecurityContext struct {
			AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
			Capabilities             struct{ Drop []string }
		} `yaml:"securityContext"`
		VolumeMounts []volumeMount `yaml:"volumeMounts"`
	}
	volumeMount struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	}
	configMap struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   metadata
		Data       map[string]string
	}
	podSpec struct {
		RestartPolicy                 string `yaml:"restartPolicy"`
		TerminationGracePeriodSeconds int    `yaml:"terminationGracePeriodSeconds"`
		AutomountServiceAccountToken  *bool  `yaml:"automountServiceAccountToken"`
		SecurityContext               struct {
			RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
			RunAsUser      int                   `yaml:"runAsUser"`
			RunAsGroup     int                   `yaml:"runAsGroup"`
			FSGroup        int                   `yaml:"fsGroup"`
			SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
		} `yaml:"securityContext"`
		Containers []container
		Volumes    []struct {
			Name      string
			ConfigMap *struct{ Name string } `yaml:"configMap"`
			Secret    *struct {
				SecretName  string `yaml:"secretName"`
				DefaultMode int    `yaml:"defaultMode"`
			}
			PersistentVolumeClaim *struct {
				ClaimName string `yaml:"claimName"`
				ReadOnly  bool   `yaml:"readOnly"`
			} `yaml:"persistentVolumeClaim"`
			EmptyDir *struct{} `yaml:"emptyDir"`
		}
	}
	deployment struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   metadata
		Spec       struct {
			Replicas int
			Selector selector
			Strategy struct {
				Type          string
				RollingUpdate struct {
					MaxUnavailable int `yaml:"maxUnavailable"`
					MaxSurge       int `yaml:"maxSurge"`
				} `yaml:"rollingUpdate"`
			}
			Template struct {
				Metadata metadata
				Spec     podSpec
			}
		}
	}
	job struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   metadata
		Spec       struct {
			BackoffLimit int `yaml:"backoffLimit"`
			Template     struct {
				Metadata metadata
				Spec     podSpec
			}
		}
	}
	service struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   metadata
		Spec       struct {
			Selector map[string]string
			Ports    []struct {
				Name       string
				Port       int
				TargetPort string `yaml:"targetPort"`
			}
		}
	}
	disruptionBudget struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   metadata
		Spec       struct {
			MaxUnavailable int `yaml:"maxUnavailable"`
			Selector       selector
		}
	}
	autoscaler struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   metadata
		Spec       struct {
			ScaleTargetRef struct {
				APIVersion string `yaml:"apiVersion"`
				Kind, Name string
			} `yaml:"scaleTargetRef"`
			MinReplicas int `yaml:"minReplicas"`
			MaxReplicas int `yaml:"maxReplicas"`
			Metrics     []struct {
				Type     string
				External struct {
					Metric struct{ Name string }
					Target struct {
						Type         string
						AverageValue string `yaml:"averageValue"`
					}
				}
			}
			Behavior struct {
				ScaleUp struct {
					Window int `yaml:"stabilizationWindowSeconds"`
				} `yaml:"scaleUp"`
				ScaleDown struct {
					Window   int `yaml:"stabilizationWindowSeconds"`
					Policies []struct {
						Type          string
						Value         int
						PeriodSeconds int `yaml:"periodSeconds"`
					}
				} `yaml:"scaleDown"`
			}
		}
	}
	cluster struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   metadata
		Spec       struct {
			Instances             int
			MinSyncReplicas       int    `yaml:"minSyncReplicas"`
			MaxSyncReplicas       int    `yaml:"maxSyncReplicas"`
			PrimaryUpdateStrategy string `yaml:"primaryUpdateStrategy"`
			Bootstrap             struct {
				InitDB struct{ Database, Owner, Encoding string } `yaml:"initdb"`
			}
			PostgreSQL struct{ Parameters map[string]string } `yaml:"postgresql"`
			Storage    struct{ Size string }
			Resources  resources
		}
	}
)

// documents decodes the documents of a file into these, in order.
func documents(t *testing.T, path string, into ...any) {
	t.Helper()
	all := strings.Split(read(t, path), "\n---\n")
	require.Len(t, all, len(into), path)
	for i, text := range all {
		require.NoError(t, yaml.NewDecoder(strings.NewReader(text), yaml.Strict()).Decode(into[i]), "%s, document %d", path, i+1)
	}
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	var (
		files  configMap
		d      deployment
		s      service
		budget disruptionBudget
		scaler autoscaler
	)
	documents(t, "kubernetes/tasker.yaml", &files, &d, &s, &budget, &scaler)
	for _, k := range [][2]string{
		{files.APIVersion + " " + files.Kind, "v1 ConfigMap"},
		{d.APIVersion + " " + d.Kind, "apps/v1 Deployment"},
		{s.APIVersion + " " + s.Kind, "v1 Service"},
		{budget.APIVersion + " " + budget.Kind, "policy/v1 PodDisruptionBudget"},
		{scaler.APIVersion + " " + scaler.Kind, "autoscaling/v2 HorizontalPodAutoscaler"},
	} {
		require.Equal(t, k[1], k[0])
	}
	labels := d.Spec.Template.Metadata.Labels
	require.NotEmpty(t, labels)
	for _, selects := range []map[string]string{d.Spec.Selector.MatchLabels, s.Spec.Selector, budget.Spec.Selector.MatchLabels} {
		require.Equal(t, labels, selects)
	}
	require.Less(t, budget.Spec.MaxUnavailable, d.Spec.Replicas)

	// The files are those of the host, read by its own eyes.
	cfg := load(t, files.Data["host.toml"])
	require.True(t, cfg.Auth.Enabled)
	pod := d.Spec.Template.Spec
	require.Len(t, pod.Containers, 1)
	c := pod.Containers[0]
	require.Equal(t, fmt.Sprintf("0.0.0.0:%d", c.Ports[0].ContainerPort), cfg.System.HTTPListen)
	require.Equal(t, s.Spec.Ports[0].TargetPort, c.Ports[0].Name)
	grace := time.Duration(pod.TerminationGracePeriodSeconds) * time.Second
	require.Greater(t, grace, cfg.Orchestration.SupervisorTimeout, "the pod would be killed while it drains")
	stop := c.Lifecycle.PreStop.Exec.Command
	require.Equal(t, []string{"/usr/local/bin/tasker", "shutdown"}, stop[:2])
	drain, err := time.ParseDuration(stop[slices.Index(stop, "--grace")+1])
	require.NoError(t, err)
	require.Equal(t, cfg.Orchestration.DrainTimeout, drain)

	described := read(t, "../docs/openapi.json")
	for path, p := range map[string]probe{"/health/startup": c.StartupProbe, "/health/live": c.LivenessProbe, "/health/ready": c.ReadinessProbe} {
		require.Equal(t, path, p.HTTPGet.Path)
		require.Contains(t, described, `"`+path+`"`)
		require.Equal(t, c.Ports[0].Name, p.HTTPGet.Port)
		require.Equal(t, "HTTPS", p.HTTPGet.Scheme)
	}
	require.NotNil(t, c.SecurityContext.AllowPrivilegeEscalation)
	require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	require.True(t, pod.SecurityContext.RunAsNonRoot && c.SecurityContext.ReadOnlyRootFilesystem)
	require.NotNil(t, pod.AutomountServiceAccountToken)
	require.False(t, *pod.AutomountServiceAccountToken)

	var volumes, mounts []string
	for _, v := range pod.Volumes {
		volumes = append(volumes, v.Name)
		if v.ConfigMap != nil {
			require.Equal(t, files.Metadata.Name, v.ConfigMap.Name)
		}
	}
	for _, m := range c.VolumeMounts {
		mounts = append(mounts, m.Name)
		require.True(t, m.ReadOnly || m.Name == "state" || m.Name == "tmp", m.Name)
	}
	require.ElementsMatch(t, volumes, mounts)

	target := scaler.Spec.ScaleTargetRef
	require.Equal(t, []string{d.APIVersion, d.Kind, d.Metadata.Name}, []string{target.APIVersion, target.Kind, target.Name})
	require.Less(t, scaler.Spec.MinReplicas, scaler.Spec.MaxReplicas)
	require.Contains(t, exported(t), scaler.Spec.Metrics[0].External.Metric.Name)

	var db cluster
	documents(t, "kubernetes/postgres.yaml", &db)
	require.Equal(t, "postgresql.cnpg.io/v1 Cluster", db.APIVersion+" "+db.Kind)
	require.Equal(t, "UTF8", db.Spec.Bootstrap.InitDB.Encoding)
	require.Positive(t, db.Spec.MinSyncReplicas, "a failover would lose what was acknowledged")
	var most int
	_, err = fmt.Sscan(db.Spec.PostgreSQL.Parameters["max_connections"], &most)
	require.NoError(t, err)
	require.Greater(t, most, scaler.Spec.MaxReplicas*cfg.Database.MaxConnections, "the hosts would wait for connections")
}

// exported returns the metrics of the host, with their labels.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(tasker_[a-z0-9_]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(read(t, "../docs/metrics.md"), -1) {
		all[row[1]] = []string{"instance"}
		for _, l := range strings.Split(row[2], ",") {
			if l = strings.TrimSpace(l); l != "" {
				all[row[1]] = append(all[row[1]], l)
			}
		}
	}
	require.Greater(t, len(all), 30)
	return all
}

var (
	metricUse = regexp.MustCompile(`(tasker_[a-z0-9_]+)(\{[^}]*\})?`)
	labelUse  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
	histogram = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// requireExported requires that all that an expression speaks of is there: a rule
// about what nobody exports never fires.
func requireExported(t *testing.T, all map[string][]string, where, expr string) {
	t.Helper()
	uses := metricUse.FindAllStringSubmatch(expr, -1)
	require.NotEmpty(t, uses, "%s: %s", where, expr)
	for _, use := range uses {
		labels, ok := all[use[1]]
		if !ok {
			labels, ok = all[histogram.ReplaceAllString(use[1], "")]
		}
		require.True(t, ok, "%s: nothing exports %s", where, use[1])
		for _, l := range labelUse.FindAllStringSubmatch(use[2], -1) {
			require.Contains(t, labels, l[1], "%s: %s has no such label", where, use[1])
		}
	}
	require.Equal(t, strings.Count(expr, "("), strings.Count(expr, ")"), "%s: %s", where, expr)
}

func TestAlerts(t *testing.T) {
	t.Parallel()
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	require.NoError(t, yaml.NewDecoder(strings.NewReader(read(t, "observability/alerts.yaml")), yaml.Strict()).Decode(&file))
	all, seen := exported(t), map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			require.False(t, seen[r.Alert], r.Alert)
			seen[r.Alert] = true
			requireExported(t, all, r.Alert, r.Expr)
			require.Contains(t, []string{"critical", "warning", "info"}, r.Labels["severity"], r.Alert)
			require.NotEmpty(t, r.Annotations["summary"], r.Alert)
			require.NotEmpty(t, r.Annotations["action"], r.Alert)
			if r.For != "" {
				_, err := time.ParseDuration(r.For)
				require.NoError(t, err, r.Alert)
			}
		}
	}
	require.GreaterOrEqual(t, len(seen), 10)
	if promtool, err := exec.LookPath("promtool"); err == nil { // its package brings a server along: it is not asked for
		out, err := exec.Command(promtool, "check", "rules", "observability/alerts.yaml").CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	var board struct {
		UID, Title string
		Panels     []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, RefID string }
		}
		Templating struct {
			List []struct{ Name string }
		}
	}
	src := read(t, "observability/dashboard.json")
	require.NoError(t, json.NewDecoder(bytes.NewReader([]byte(src))).Decode(&board))
	require.NotEmpty(t, board.UID)
	all, ids := exported(t), map[int]bool{}
	for _, p := range board.Panels {
		require.False(t, ids[p.ID], p.Title)
		ids[p.ID] = true
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			requireExported(t, all, p.Title, target.Expr)
		}
	}
	var variables []string
	for _, v := range board.Templating.List {
		variables = append(variables, v.Name)
	}
	for _, use := range regexp.MustCompile(`\$\{?([a-z][a-z_]+)`).FindAllStringSubmatch(src, -1) {
		require.Contains(t, variables, use[1])
	}
}

// The job that migrates is the deployment's image with the same files, and no pod that
// its service or its budget counts.
func TestKubernetesMigration(t *testing.T) {
	t.Parallel()
	var (
		files configMap
		d     deployment
		j     job
	)
	documents(t, "kubernetes/tasker.yaml", &files, &d, new(service), new(disruptionBudget), new(autoscaler))
	documents(t, "kubernetes/migrate.yaml", &j)
	require.Equal(t, "batch/v1 Job", j.APIVersion+" "+j.Kind)
	require.NotEqual(t, d.Spec.Template.Metadata.Labels, j.Spec.Template.Metadata.Labels)
	host, pod := d.Spec.Template.Spec, j.Spec.Template.Spec
	require.Equal(t, "Never", pod.RestartPolicy, "a job takes no Always, which is the default")
	require.Equal(t, host.SecurityContext, pod.SecurityContext)
	c := pod.Containers[0]
	require.Equal(t, host.Containers[0].Image, c.Image)
	require.Equal(t, host.Containers[0].SecurityContext, c.SecurityContext)
	require.Equal(t, append([]string{"migrate"}, host.Containers[0].Args[1:]...), c.Args)
	for _, m := range c.VolumeMounts {
		require.Contains(t, host.Containers[0].VolumeMounts, m)
	}
	for _, v := range pod.Volumes {
		require.Contains(t, host.Volumes, v)
	}
	require.Len(t, c.VolumeMounts, len(pod.Volumes))
	url := regexp.MustCompile(`url_file = "(.*)"`).FindStringSubmatch(files.Data["host.toml"])
	require.NotNil(t, url)
	require.True(t, slices.ContainsFunc(c.VolumeMounts, func(m volumeMount) bool { return filepath.Dir(url[1]) == m.MountPath }), url[1])
}
