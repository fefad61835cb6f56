package cli

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/pluginset"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// pluginFileCommands work on plugins.toml, plugins.lock and binaries. They need no
// host.
func (a *app) pluginFileCommands() []*cobra.Command {
	return []*cobra.Command{a.lockCommand(), a.diffCommand(), a.keygenCommand(), a.signCommand(), a.verifyCommand()}
}

// pluginsFlag lets a command name another plugins.toml than the configured one.
func pluginsFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("plugins", "", "path of plugins.toml (default: as configured)")
}

// pluginsFile returns the plugins.toml to work on. The environments in it need not be
// ones that a host could run in on this machine.
func (a *app) pluginsFile(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	options, err := a.configOptions()
	if err != nil {
		return "", err
	}
	options.Environment = "development"
	cfg, err := config.Load(options)
	if err != nil {
		return "", fmt.Errorf("find plugins.toml (or name it with --plugins): %w", err)
	}
	return cfg.System.Plugins, nil
}

// environments returns the names in --env. An environment is built in, or has a table
// in plugins.toml or a folder in the configuration.
func (a *app) environments(plugins string) ([]string, error) {
	if a.env == "" {
		return nil, nil
	}
	names := strings.Split(a.env, ",")
	known, err := config.PluginEnvironments(plugins)
	if err != nil {
		return nil, err
	}
	options, err := a.configOptions()
	if err != nil {
		return nil, err
	}
	own, err := config.Environments(options)
	if err != nil {
		return nil, err
	}
	known = slices.Compact(slices.Sorted(slices.Values(append(known, own...))))
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, usagef("--env: no environment %q in %s or the configuration; want one of %s", name, plugins, strings.Join(known, ", "))
		}
	}
	return names, nil
}

func (a *app) lockCommand() *cobra.Command {
	var artifacts []string
	var check bool
	cmd := &cobra.Command{
		Use: "lock", Short: "Write plugins.lock, which lists the binaries that may run", Args: arguments(0, 0, ""),
		Long: "Write plugins.lock next to plugins.toml, with the checksum of each plugin's binary by environment and platform. " +
			"Without --env, it covers the environments that require a lock. Add builds for other platforms with --artifact.",
		Example: "  tasker plugin lock --env staging,production\n  tasker plugin lock --artifact handler/arithmetic=dist/arm64/arithmetic",
	}
	plugins := pluginsFlag(cmd)
	cmd.Flags().StringArrayVar(&artifacts, "artifact", nil, "a build for another platform, as KIND/NAME=PATH")
	cmd.Flags().BoolVar(&check, "check", false, "write nothing; fail if the lock is out of date")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path, err := a.pluginsFile(*plugins)
		if err != nil {
			return err
		}
		names, err := a.environments(path)
		if err != nil {
			return err
		}
		o := pluginset.LockOptions{Plugins: path, Environments: names, Artifacts: map[string][]string{}, Check: check}
		for _, pair := range artifacts {
			slot, file, ok := strings.Cut(pair, "=")
			if !ok || file == "" {
				return usagef("--artifact %q: want KIND/NAME=PATH", pair)
			}
			o.Artifacts[slot] = append(o.Artifacts[slot], file)
		}
		report, err := pluginset.Lock(cmd.Context(), o)
		if err != nil {
			return err
		}
		if a.json {
			err = a.printJSON(report)
		} else {
			a.showLock(report, check)
		}
		if err == nil && check && report.Changed {
			err = errShown
		}
		return err
	}
	return cmd
}

func (a *app) showLock(r readmodel.PluginLock, check bool) {
	var t table
	t.header("ENVIRONMENT", "PLUGIN", "VERSION", "PLATFORM", "SHA256", "")
	for _, p := range r.Plugins {
		for _, platform := range slices.Sorted(maps.Keys(p.SHA256)) {
			t.add(text(p.Environment), text(p.Slot), text(p.Version), text(platform), text(short(p.SHA256[platform])), changeCell(p.Change))
		}
	}
	a.printTable(&t)
	for _, d := range r.Dropped {
		a.printf("%s %s of %s: the plugin has changed, so its checksums for %s were removed; add them again with --artifact\n",
			a.paint(yellow, "dropped"), d.Slot, d.Environment, strings.Join(d.Platforms, ", "))
	}
	switch {
	case !r.Changed:
		a.printf("%s is up to date\n", r.Path)
	case check:
		a.printf("%s is %s: run 'tasker plugin lock'\n", r.Path, a.paint(red, "not up to date"))
	default:
		a.printf("wrote %s\n", r.Path)
	}
}

func changeCell(change string) cell {
	c := cell{text: change, colour: grey}
	if change != "unchanged" {
		c.colour = yellow
	}
	return c
}

// shortDigest is how many digits of a checksum are shown to tell binaries apart.
const shortDigest = 12

func short(digest string) string {
	if len(digest) > shortDigest {
		return digest[:shortDigest]
	}
	return digest
}

func (a *app) diffCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "diff --env A,B", Short: "Compare the plugins of several environments", Args: arguments(0, 0, ""),
		Long: "Show how the plugins of two or more environments differ: which plugins there are, their binaries, versions, settings " +
			"and options. Secrets are shown as the references in plugins.toml.",
	}
	plugins := pluginsFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		path, err := a.pluginsFile(*plugins)
		if err != nil {
			return err
		}
		environments, err := a.environments(path)
		if err != nil {
			return err
		}
		if len(environments) < 2 {
			return usagef("name the environments to compare, such as --env staging,production")
		}
		diff, err := pluginset.Compare(path, environments)
		return a.answer(diff, err, func() { a.showPluginDiff(diff) })
	}
	return cmd
}

func (a *app) showPluginDiff(d readmodel.PluginDiff) {
	if len(d.Differences) == 0 {
		a.printf("no differences between %s\n", strings.Join(d.Environments, ", "))
		return
	}
	var t table
	t.header(append([]string{"PLUGIN", "FIELD"}, d.Environments...)...)
	for _, row := range d.Differences {
		cells := []cell{text(row.Slot), text(row.Field)}
		for _, v := range row.Values {
			if strings.HasPrefix(row.Field, "sha256") {
				v = short(v)
			}
			if v == "" {
				v = "–"
			}
			cells = append(cells, text(v))
		}
		t.add(cells...)
	}
	a.printTable(&t)
}

func (a *app) keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use: "keygen FILE", Short: "Create a key pair to sign plugins with", Args: arguments(1, 1, "a FILE for the private key"),
		Long: "Create a key pair: the private key in FILE, the public key in FILE.pub. Both files are in minisign's format.",
		RunE: func(_ *cobra.Command, args []string) error {
			public, err := pluginset.Keygen(args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(readmodel.PluginKey{Private: args[0], Public: public})
			}
			a.printf("private key in %s: keep it away from hosts\n", args[0])
			a.printf("for plugins.toml:\n\n[trust]\nkeys = [%q]\n", public)
			return nil
		},
	}
}

func (a *app) signCommand() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use: "sign FILE --key KEYFILE", Short: "Sign a plugin's binary", Args: arguments(1, 1, "a FILE"),
		Long: "Sign a plugin's binary. The signature is written to FILE.minisig, where hosts look for it. The private key comes from " +
			"'tasker plugin keygen' or minisign. The password of an encrypted key is read from MINISIGN_PASSWORD.",
		RunE: func(_ *cobra.Command, args []string) error {
			if key == "" {
				return usagef("name the private key: --key KEYFILE")
			}
			s, err := pluginset.Sign(args[0], key, a.getenv("MINISIGN_PASSWORD"))
			if err != nil {
				return err
			}
			return a.showSignature("signed", s)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "file with the private key")
	return cmd
}

func (a *app) verifyCommand() *cobra.Command {
	var keys []string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Check the signature of a plugin's binary", Args: arguments(1, 1, "a FILE"),
		Long: "Check the signature of a plugin's binary against the given keys, or against those that plugins.toml trusts in the environment.",
	}
	plugins := pluginsFlag(cmd)
	cmd.Flags().StringArrayVar(&keys, "key", nil, "a public key, or a file that contains one")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(keys) == 0 {
			var err error
			if keys, err = a.trustedKeys(*plugins); err != nil {
				return err
			}
		}
		s, err := pluginset.Verify(args[0], keys)
		if err != nil {
			return err
		}
		return a.showSignature("good signature", s)
	}
	return cmd
}

func (a *app) trustedKeys(flag string) ([]string, error) {
	path, err := a.pluginsFile(flag)
	if err != nil {
		return nil, err
	}
	env := a.env
	if env == "" {
		env = a.getenv("TASKER_ENV")
	}
	if env == "" {
		env = "development"
	}
	p, err := config.LoadPlugins(path, env)
	if err != nil {
		return nil, err
	}
	if len(p.Trust.Keys) == 0 {
		return nil, usagef("%s trusts no key in %s: give one with --key", path, env)
	}
	return p.Trust.Keys, nil
}

func (a *app) showSignature(verdict string, s pluginset.Signed) error {
	if a.json {
		return a.printJSON(readmodel.PluginSignature{Path: s.Path, SHA256: s.SHA256, Signature: s.Signature, Key: s.Key})
	}
	a.printf("%s: %s, sha256 %s, key %s, in %s\n", a.paint(green, verdict), s.Path, s.SHA256, s.Key, filepath.Base(s.Signature))
	return nil
}
