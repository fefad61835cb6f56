package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Reference returns the page about all commands, docs/cli.md, generated from their
// own descriptions.
func Reference(rt Runtime) string {
	a := &app{rt: rt, getenv: func(string) string { return "" }}
	root := a.root()
	var out strings.Builder
	out.WriteString(referenceHead)
	for _, e := range exitCodes {
		fmt.Fprintf(&out, "| %d | %s |\n", e.code, e.meaning)
	}
	out.WriteString("\n## Flags of every command\n\n")
	flagTable(&out, root.PersistentFlags())
	out.WriteString("\n## Commands\n")
	describeCommands(&out, root)
	return strings.TrimRight(out.String(), "\n") + "\n"
}

const referenceHead = `# Commands

This page is generated from the help of the commands. [Operate](operate.md) explains how to work with them.

By default, commands print tables, in colour on a terminal unless ` + "`NO_COLOR`" + ` is set. With ` + "`--json`" + `, they print the
[API](openapi.json)'s response, with the same names and every digit. An error is then a JSON object on standard error with
` + "`exit_code`, `code` and `detail`, and with `task_uuid` if an existing task is in the way" + `.

` + "`tasker completion bash|zsh|fish|powershell`" + ` prints a completion script for that shell. It completes commands, flags, and
the host's tasks, steps, templates, namespaces, plugins, pools and breakers. For bash: ` + "`source <(tasker completion bash)`" + `.

## Exit codes

| code | meaning |
|---|---|
`

func describeCommands(out *strings.Builder, parent *cobra.Command) {
	for _, c := range parent.Commands() {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		if c.HasSubCommands() {
			describeCommands(out, c)
			if c.DisableFlagsInUseLine { // a group
				continue
			}
		}
		fmt.Fprintf(out, "\n### %s\n\n    %s\n", c.CommandPath(), strings.TrimSuffix(c.UseLine(), " [flags]"))
		if short := strings.TrimSuffix(c.Short, "."); !strings.HasPrefix(c.Long, short) {
			fmt.Fprintf(out, "\n%s.\n", short)
		}
		if c.Long != "" {
			fmt.Fprintf(out, "\n%s\n", c.Long)
		}
		if c.Example != "" {
			fmt.Fprintf(out, "\n```sh\n%s\n```\n", strings.ReplaceAll(strings.TrimPrefix(c.Example, "  "), "\n  ", "\n"))
		}
		if flags := c.LocalNonPersistentFlags(); flags.HasAvailableFlags() {
			out.WriteString("\n")
			flagTable(out, flags)
		}
	}
}

func flagTable(out *strings.Builder, flags *pflag.FlagSet) {
	out.WriteString("| flag | |\n|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "`--" + f.Name
		if kind, _ := pflag.UnquoteUsage(f); kind != "" {
			name += " " + kind
		}
		name += "`"
		if f.Shorthand != "" {
			name += ", `-" + f.Shorthand + "`"
		}
		usage := f.Usage
		if f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(out, "| %s | %s |\n", name, strings.ReplaceAll(usage, "|", `\|`))
	})
}
