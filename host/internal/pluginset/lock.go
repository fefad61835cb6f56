package pluginset

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/artifact"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// LockOptions say what to lock.
type LockOptions struct {
	Plugins      string   // the path of plugins.toml
	Environments []string // none: those that require a lock
	// Artifacts are files in addition to those at the plugins' paths, namely
	// builds for other platforms, by slot such as handler/arithmetic.
	Artifacts map[string][]string
	// Check reports without writing.
	Check bool
}

// Lock writes plugins.lock: the checksums of the files that are there now.
// Entries of other environments stay.
func Lock(ctx context.Context, o LockOptions) (readmodel.PluginLock, error) {
	if len(o.Environments) == 0 {
		envs, err := lockedEnvironments(o.Plugins)
		if err != nil {
			return readmodel.PluginLock{}, err
		}
		o.Environments = envs
	}
	l := locker{LockOptions: o, unused: slices.Collect(maps.Keys(o.Artifacts))}
	for _, env := range o.Environments {
		if err := l.environment(ctx, env); err != nil {
			return readmodel.PluginLock{}, err
		}
	}
	if len(l.unused) > 0 {
		slices.Sort(l.unused)
		return readmodel.PluginLock{}, fmt.Errorf("plugins.toml has no plugin %s in %s", strings.Join(l.unused, ", "), strings.Join(o.Environments, ", "))
	}
	l.report.Path = l.lock.Path
	text := l.lock.Encode()
	before, err := os.ReadFile(l.lock.Path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return readmodel.PluginLock{}, fmt.Errorf("read plugin lock: %w", err)
	}
	l.report.Changed = string(before) != string(text)
	if o.Check || !l.report.Changed {
		return l.report, nil
	}
	if err := replaceFile(l.lock.Path, text, 0o644); err != nil {
		return readmodel.PluginLock{}, fmt.Errorf("write plugin lock: %w", err)
	}
	return l.report, nil
}

// lockedEnvironments returns the environments that require a lock: production,
// unless it says otherwise, and those for which plugins.toml says so.
func lockedEnvironments(path string) ([]string, error) {
	names, err := config.PluginEnvironments(path)
	if err != nil {
		return nil, err
	}
	var locked []string
	for _, env := range names {
		p, err := config.LoadPlugins(path, env)
		if err != nil {
			return nil, err
		}
		if p.Lock.Required {
			locked = append(locked, env)
		}
	}
	if len(locked) == 0 {
		return nil, errors.New("no environment requires a lock: name one with --env, or set [lock] required = true in plugins.toml")
	}
	return locked, nil
}

type locker struct {
	LockOptions
	lock   *config.Lock
	report readmodel.PluginLock
	unused []string // slots of Artifacts that no plugin has
}

func (l *locker) environment(ctx context.Context, env string) error {
	plugins, err := config.LoadPlugins(l.Plugins, env)
	if err != nil {
		return err
	}
	if l.lock == nil {
		if l.lock, err = loadLock(plugins.Path); err != nil {
			return err
		}
		if l.lock == nil {
			l.lock = config.NewLock(config.LockPath(plugins.Path))
		}
	}
	var errs []error
	for i := range plugins.Specs {
		errs = append(errs, l.plugin(ctx, env, &plugins.Specs[i]))
	}
	for _, old := range l.lock.All() {
		gone := old.Environment == env && !slices.ContainsFunc(plugins.Specs, func(s config.PluginSpec) bool { return s.Kind == old.Kind && s.Name == old.Name })
		if gone {
			l.lock.Remove(env, old.Kind, old.Name)
			l.report.Plugins = append(l.report.Plugins, lockedPlugin(old, "removed"))
		}
	}
	return errors.Join(errs...)
}

func (l *locker) plugin(ctx context.Context, env string, spec *config.PluginSpec) error {
	slot := spec.Slot()
	l.unused = slices.DeleteFunc(l.unused, func(s string) bool { return s == slot })
	next := config.Locked{Environment: env, Kind: spec.Kind, Name: spec.Name, SHA256: map[string]string{}}
	for _, path := range append([]string{spec.Path}, l.Artifacts[slot]...) {
		file, err := artifact.Inspect(path, nil)
		if err != nil {
			return err
		}
		if other, twice := next.SHA256[file.Platform]; twice && other != file.SHA256 {
			return fmt.Errorf("%s: a second file for %s on %s: %s and %s; give one file per platform", path, slot, file.Platform, other, file.SHA256)
		}
		next.SHA256[file.Platform] = file.SHA256
		if next.Version == "" && checkPlatform(file) == nil {
			next.Version = describedVersion(ctx, path)
		}
	}
	before, known := l.lock.Plugin(env, spec.Kind, spec.Name)
	l.keepOthers(before, &next)
	l.lock.Set(next)
	change := "unchanged"
	switch {
	case !known:
		change = "added"
	case !maps.Equal(before.SHA256, next.SHA256) || before.Version != next.Version:
		change = "changed"
	}
	l.report.Plugins = append(l.report.Plugins, lockedPlugin(next, change))
	return nil
}

// keepOthers keeps the checksums of platforms that were not given now, unless
// the plugin has changed, because then they belong to the previous binary.
func (l *locker) keepOthers(before config.Locked, next *config.Locked) {
	changed := false
	for platform, sum := range next.SHA256 {
		changed = changed || before.SHA256[platform] != sum
	}
	var dropped []string
	for _, platform := range slices.Sorted(maps.Keys(before.SHA256)) {
		switch _, given := next.SHA256[platform]; {
		case given:
		case changed:
			dropped = append(dropped, platform)
		default:
			next.SHA256[platform] = before.SHA256[platform]
		}
	}
	if len(dropped) > 0 {
		l.report.Dropped = append(l.report.Dropped, readmodel.DroppedChecksums{
			Environment: next.Environment, Slot: next.Kind + "/" + next.Name, Platforms: dropped,
		})
	}
}

func lockedPlugin(p config.Locked, change string) readmodel.LockedPlugin {
	return readmodel.LockedPlugin{
		Environment: p.Environment, Slot: p.Kind + "/" + p.Name, Version: p.Version, SHA256: p.SHA256, Change: change,
	}
}

const (
	describeTimeout = 5 * time.Second
	sdkModule       = "github.com/tasker-systems/tasker-host"
)

var plainVersion = regexp.MustCompile(`^[A-Za-z0-9.+_-]{1,64}$`)

// describedVersion asks a plugin made with our SDK for its version. Others are
// not run, because nobody knows what they would do.
func describedVersion(ctx context.Context, path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return ""
	}
	ours := info.Main.Path == sdkModule
	for _, dep := range info.Deps {
		ours = ours || dep.Path == sdkModule
	}
	if !ours {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "describe")
	cmd.Env, cmd.WaitDelay = []string{}, time.Second
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	var described struct {
		Version string `json:"version"`
	}
	if json.Unmarshal(out, &described) != nil || !plainVersion.MatchString(described.Version) {
		return ""
	}
	return described.Version
}
