package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func (a *app) pluginCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the plugins of the host", Args: arguments(0, 0, ""),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			page, err := c.PluginList(ctx)
			if err != nil {
				return err
			}
			if a.json {
				page.Items = orEmpty(page.Items)
				return a.printJSON(page)
			}
			a.listPlugins(page.Items)
			if page.Problem != "" {
				a.printf("\n%s %s\n", a.paint(red, "refused"), printable(page.Problem))
			}
			return nil
		}),
	}
	commands := append(a.pluginFileCommands(), list, a.planCommand(), a.applyPluginsCommand(), a.explainCommand(), a.historyCommand(), a.swapCommand(), a.releaseCommand(),
		a.pluginNewCommand(), a.pluginCheckCommand(), a.pluginRunCommand(),
		a.pluginVerb("rollback", "Undo the last change of a plugin",
			"Undo the last change of a plugin. A rollout in progress is abandoned; otherwise the previous generation takes over, at once if "+
				"it is still warm. What is rolled back stays in quarantine until 'tasker plugin release'.", (*client.Client).RollBackPlugin),
		a.pluginVerb("promote", "Complete a plugin's rollout now",
			"End a plugin's canary or shadow phase: the new generation takes over now.", (*client.Client).PromotePlugin))
	return group("plugin", "Show, create, check, swap and sign plugins", "", commands...)
}

func (a *app) listPlugins(plugins []readmodel.Plugin) {
	if len(plugins) == 0 {
		a.printf("no plugins; name some in plugins.toml\n")
		return
	}
	var t table
	t.header("PLUGIN", "GENERATION", "SHA256", "VERSION", "STATE", "IN FLIGHT", "SINCE", "PID", "RESTARTS", "SERVES", "LIMITS", "MESSAGE")
	for i := range plugins {
		p := &plugins[i]
		generation := number(p.Generation)
		if p.Next != 0 {
			generation += " → " + number(p.Next)
		}
		t.add(text(p.Kind+"/"+p.Name), text(generation), text(short(p.Artifact)), text(p.Version), stateCell(p.State),
			text(strconv.Itoa(p.InFlight)), text(a.lasting(p.Since, nil)), text(number(int64(p.PID))),
			text(strconv.Itoa(p.Restarts)), text(served(p)), text(p.Limits), text(p.Message))
	}
	a.printTable(&t)
}

// served names what a plugin serves.
func served(p *readmodel.Plugin) string {
	var names []string
	for _, h := range p.Handlers {
		names = append(names, h.Name)
	}
	return strings.Join(append(names, p.Serves...), ", ")
}

// number leaves out a zero.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func (a *app) planCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "plan", Short: "Show which changes in plugins.toml are not applied yet", Args: arguments(0, 0, ""),
		Long: "Show which changes in plugins.toml and plugins.lock are not applied yet. Nothing is changed.\n\n" +
			"A host applies an edit as soon as it notices it. To see the effect of an edit beforehand, edit a copy and name it with --file. " +
			"Relative paths in the copy start from the folder of the host's plugins.toml.",
		Example: "  cp plugins.toml next.toml && $EDITOR next.toml\n  tasker plugin plan --file next.toml && mv next.toml plugins.toml",
	}
	cmd.Flags().StringVar(&file, "file", "", "file to compare instead of plugins.toml; - is standard input")
	cmd.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		if file == "" {
			plan, err := c.PluginPlan(ctx)
			return a.showPlan(plan, err)
		}
		text, err := a.readInput(file)
		if err != nil {
			return err
		}
		plan, err := c.PluginPlanOf(ctx, string(text))
		return a.showPlan(plan, namePlace(err, "text", file))
	})
	return cmd
}

// namePlace inserts the name of the file that was sent: the host does not know it and
// names only the field of the request.
func namePlace(err error, field, file string) error {
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		return err
	}
	for i := range e.Issues {
		if line, ok := strings.CutPrefix(e.Issues[i].Location, field+":"); ok {
			e.Issues[i].Location = file + ":" + line
		}
	}
	return err
}

func (a *app) applyPluginsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "apply", Short: "Apply changes in plugins.toml now", Args: arguments(0, 0, ""),
		Long: "Apply plugins.toml and plugins.lock now, without waiting for the host to notice a change. What failed before is tried " +
			"again. Exits with 1 if something could not be applied.",
	}
	reason := reasonFlag(cmd)
	cmd.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		plan, err := c.ApplyPlugins(ctx, *reason)
		if err := a.showPlan(plan, err); err != nil {
			return err
		}
		for _, change := range plan.Changes {
			if change.Error != "" || change.Action == "refuse" {
				return errShown
			}
		}
		return nil
	})
	return cmd
}

func reasonFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("reason", "", "reason to record in the plugin's history")
}

func (a *app) showPlan(plan readmodel.PluginPlan, err error) error {
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(plan)
	}
	var t table
	t.header("PLUGIN", "ACTION", "FROM", "TO", "WHY")
	idle := 0
	for _, c := range plan.Changes {
		if c.Action == "keep" && c.Error == "" {
			idle++
			continue
		}
		why := c.Reason
		if c.Error != "" {
			why = c.Error
		}
		t.add(text(c.Kind+"/"+c.Name), actionCell(c), text(short(c.From)), text(short(c.To)), text(why))
	}
	if len(t.rows) > 1 {
		a.printTable(&t)
	}
	if idle > 0 {
		a.printf("%d up to date\n", idle)
	}
	return nil
}

func actionCell(c readmodel.PluginChange) cell {
	colour := green
	if c.Error != "" || c.Action == "refuse" {
		colour = red
	}
	return cell{text: c.Action, colour: colour}
}

// slotOf reads NAME or KIND/NAME; a name alone means a handler plugin.
func slotOf(arg string) (kind, name string, err error) {
	kind, name = "handler", arg
	if k, n, ok := strings.Cut(arg, "/"); ok {
		kind, name = k, n
	}
	if !slotName.MatchString(kind + "/" + name) {
		return "", "", usagef("%q is not a plugin: want NAME or KIND/NAME, such as arithmetic or scaling/pid", arg)
	}
	return kind, name, nil
}

var slotName = regexp.MustCompile(`^(handler|scaling|health)/[a-z][a-z0-9_-]{0,62}$`)

func (a *app) withPlugin(run func(ctx context.Context, c *client.Client, kind, name string) (readmodel.PluginDetail, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		kind, name, err := slotOf(args[0])
		if err != nil {
			return err
		}
		return a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			d, err := run(ctx, c, kind, name)
			return a.answer(d, err, func() { a.showPlugin(&d) })
		})(cmd, args)
	}
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain NAME", Short: "Explain which generation of a plugin runs, and why", Args: arguments(1, 1, "a NAME, or KIND/NAME"),
		RunE: a.withPlugin(func(ctx context.Context, c *client.Client, kind, name string) (readmodel.PluginDetail, error) {
			return c.Plugin(ctx, kind, name)
		}),
	}
}

func (a *app) historyCommand() *cobra.Command {
	var limit int
	var cursor string
	cmd := &cobra.Command{
		Use: "history [NAME]", Short: "List what happened to plugins, and who caused it", Args: arguments(0, 1, "a NAME, or KIND/NAME"),
		Long: "List what happened to a plugin, or to all plugins of the host, on every host of the environment, newest first. For one " +
			"plugin, --cursor continues the list.",
	}
	limitFlag(cmd, &limit, 50, 1000, "maximum number of events for each plugin")
	cmd.Flags().StringVar(&cursor, "cursor", "", "continue the history of one plugin from its next_cursor")
	cmd.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		if cursor != "" && len(args) == 0 {
			return usagef("--cursor needs a plugin: tasker plugin history NAME --cursor CURSOR")
		}
		slots, err := slotsOf(ctx, c, args)
		if err != nil {
			return err
		}
		var history readmodel.PluginHistory
		for _, s := range slots {
			page, err := c.PluginHistory(ctx, s[0], s[1], limit, cursor)
			if err != nil {
				return err
			}
			history.Items = append(history.Items, page.Items...)
			history.NextCursor = page.NextCursor
		}
		if len(args) == 0 {
			slices.SortStableFunc(history.Items, func(a, b readmodel.PluginEvent) int { return b.At.Compare(a.At) })
			history.NextCursor = "" // each plugin has its own
		}
		if a.json {
			history.Items = orEmpty(history.Items)
			return a.printJSON(history)
		}
		a.listPluginEvents(&history)
		return nil
	})
	return cmd
}

func (a *app) listPluginEvents(history *readmodel.PluginHistory) {
	var t table
	t.header("TIME", "PLUGIN", "GENERATION", "FROM", "TO", "ACTOR", "SHA256", "VERSION", "WHY")
	for i := range history.Items {
		e := &history.Items[i]
		t.add(text(when(e.At)), text(e.Kind+"/"+e.Name), text(number(e.Generation)), text(e.From), stateCell(e.To), text(e.Actor),
			text(short(e.Artifact)), text(e.Version), text(e.Reason))
	}
	a.printTable(&t)
	if history.NextCursor != "" {
		a.printf("more: --cursor %s\n", history.NextCursor)
	}
}

// slotsOf returns the named plugin, or all plugins of the host.
func slotsOf(ctx context.Context, c *client.Client, args []string) ([][2]string, error) {
	if len(args) == 1 {
		kind, name, err := slotOf(args[0])
		return [][2]string{{kind, name}}, err
	}
	plugins, err := c.Plugins(ctx)
	var slots [][2]string
	for i := range plugins {
		slots = append(slots, [2]string{plugins[i].Kind, plugins[i].Name})
	}
	return slots, err
}

func (a *app) swapCommand() *cobra.Command {
	var artifact string
	cmd := &cobra.Command{
		Use: "swap NAME --artifact PATH", Short: "Replace a plugin's binary while it runs", Args: arguments(1, 1, "a NAME, or KIND/NAME"),
		Long: "Replace a plugin's binary while it runs; the settings in plugins.toml still apply. PATH is on the host's machine. The swap " +
			"lasts until the plugin's file or settings change or the host restarts. To make it permanent, put the binary at the path in plugins.toml.",
	}
	reason := reasonFlag(cmd)
	cmd.Flags().StringVar(&artifact, "artifact", "", "path of the new binary")
	swap := a.withPlugin(func(ctx context.Context, c *client.Client, kind, name string) (readmodel.PluginDetail, error) {
		return c.SwapPlugin(ctx, kind, name, artifact, *reason)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if artifact == "" {
			return usagef("name the new binary: --artifact PATH")
		}
		var err error
		if artifact, err = filepath.Abs(artifact); err != nil {
			return err
		}
		return swap(cmd, args)
	}
	return cmd
}

func (a *app) releaseCommand() *cobra.Command {
	var digest string
	cmd := &cobra.Command{
		Use: "release NAME", Short: "Release a plugin's binary from quarantine", Args: arguments(1, 1, "a NAME, or KIND/NAME"),
		Long: "Release a plugin's binary from quarantine, so that it may run again. This starts nothing; to start it, run 'tasker plugin apply'.",
	}
	reason := reasonFlag(cmd)
	cmd.Flags().StringVar(&digest, "digest", "", "SHA-256 of the binary, or its first digits (default: all binaries of the plugin)")
	cmd.RunE = a.withPlugin(func(ctx context.Context, c *client.Client, kind, name string) (readmodel.PluginDetail, error) {
		return c.ReleasePlugin(ctx, kind, name, digest, *reason)
	})
	return cmd
}

func (a *app) pluginVerb(verb, short, long string, do func(c *client.Client, ctx context.Context, kind, name, reason string) (readmodel.PluginDetail, error)) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " NAME", Short: short, Long: long, Args: arguments(1, 1, "a NAME, or KIND/NAME")}
	reason := reasonFlag(cmd)
	cmd.RunE = a.withPlugin(func(ctx context.Context, c *client.Client, kind, name string) (readmodel.PluginDetail, error) {
		return do(c, ctx, kind, name, *reason)
	})
	return cmd
}

// showPlugin prints everything about a plugin.
func (a *app) showPlugin(d *readmodel.PluginDetail) {
	var t table
	fact := func(name, value string) {
		if value != "" {
			t.add(cell{text: name, colour: grey}, text(value))
		}
	}
	until := func(name string, at *time.Time, what string) {
		if at != nil {
			fact(name, "until "+when(*at)+": "+what)
		}
	}
	fact("plugin", d.Kind+"/"+d.Name)
	t.add(cell{text: "state", colour: grey}, stateCell(d.State))
	fact("generation", number(d.Generation))
	fact("rolling out", number(d.Next))
	fact("version", d.Version)
	fact("sha256", d.Artifact)
	for i := range d.Generations {
		if g := &d.Generations[i]; g.Generation == d.Generation {
			fact("taken from", cmp.Or(g.Path, "the plugin store"))
		}
	}
	fact("serves", served(&d.Plugin))
	fact("message", d.Message)
	if s := d.Selected; s != nil {
		fact("selected", s.Path+", "+s.Origin)
		fact("refused", s.Error)
	}
	rollout := d.Rollout.Strategy
	if d.Rollout.Hold != "" {
		rollout += ", " + d.Rollout.Hold + " per step"
	}
	fact("rollout", rollout)
	for i := range d.Generations {
		if g := &d.Generations[i]; g.Generation == d.Generation {
			fact("limits", g.Limits)
		}
	}
	until("on trial", d.OnTrialUntil, "the previous generation takes over again if it did better")
	until("standby", d.StandbyUntil, "the previous generation is kept warm for a rollback")
	a.printTable(&t)
	a.showGenerations(d)
	for _, q := range d.Quarantined {
		a.printf("\n%s %s since %s, by %s: %s (to release it: tasker plugin release %s/%s --digest %s)\n", a.paint(red, "quarantined"),
			short(q.Artifact), when(q.Since), oneLine(q.Actor), oneLine(q.Reason), d.Kind, d.Name, short(q.Artifact))
	}
}

func (a *app) showGenerations(d *readmodel.PluginDetail) {
	if len(d.Generations) == 0 {
		return
	}
	a.printf("\n")
	var t table
	t.header("GENERATION", "PHASE", "SINCE", "SHA256", "TAKEN FROM", "VERSION", "PID", "IN FLIGHT", "SHARE", "WHY")
	for i := range d.Generations {
		g := &d.Generations[i]
		share := ""
		switch {
		case g.Weight > 0:
			share = fmt.Sprintf("%d%%, %d of %d calls", g.Weight, g.Compared, g.Needed)
		case g.Needed > 0:
			share = fmt.Sprintf("copies: %d of %d, %d differ", g.Compared, g.Needed, g.Differed)
		}
		t.add(text(number(g.Generation)), stateCell(g.Phase), text(when(g.Since)), text(short(g.Artifact)), text(cmp.Or(g.Path, "the plugin store")), text(g.Version),
			text(number(int64(g.PID))), text(strconv.Itoa(g.InFlight)), text(share), text(g.Reason))
	}
	a.printTable(&t)
}
