package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/client"
)

// completeTimeout bounds how long a press of the tab key waits.
const completeTimeout = 2 * time.Second

// names asks a host for the values that an argument may have. args are the arguments
// before it.
type names func(ctx context.Context, c *client.Client, args []string, begun string) ([]string, error)

// complete makes the completion of a command's arguments. Without a host, there is
// none, and nothing is printed into the line.
func (a *app) complete(most int, list names) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := a.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		found, err := list(ctx, c, args, begun)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return startingWith(found, begun), cobra.ShellCompDirectiveNoFileComp
	}
}

// startingWith keeps what starts with the user's input. Text after a tab is a
// description.
func startingWith(all []string, begun string) []string {
	var kept []string
	for _, s := range all {
		if strings.HasPrefix(s, begun) {
			kept = append(kept, s)
		}
	}
	return kept
}

// shownTasks is how many of the newest tasks are offered.
const shownTasks = 100

func taskNames(ctx context.Context, c *client.Client, _ []string, _ string) ([]string, error) {
	page, err := c.Tasks(ctx, client.TaskFilter{Limit: shownTasks})
	if err != nil {
		return nil, err
	}
	var found []string
	for i := range page.Items {
		t := &page.Items[i]
		found = append(found, t.UUID+"\t"+oneLine(t.Namespace+"/"+t.Name)+" "+string(t.State))
	}
	return found, nil
}

// tagNames offers the tags of the newest tasks.
func tagNames(ctx context.Context, c *client.Client, _ []string, _ string) ([]string, error) {
	page, err := c.Tasks(ctx, client.TaskFilter{Limit: shownTasks})
	if err != nil {
		return nil, err
	}
	var found []string
	for i := range page.Items {
		for _, tag := range page.Items[i].Tags {
			if !slices.Contains(found, tag) && oneLine(tag) == tag && !strings.ContainsRune(tag, ',') {
				found = append(found, tag)
			}
		}
	}
	return found, nil
}

// stepNames offers tasks, and after TASK/ the steps of that task.
func stepNames(ctx context.Context, c *client.Client, args []string, begun string) ([]string, error) {
	task, _, named := strings.Cut(begun, "/")
	if !named {
		return taskNames(ctx, c, args, begun)
	}
	steps, err := c.Steps(ctx, task)
	if err != nil {
		return nil, err
	}
	var found []string
	for i := range steps {
		found = append(found, task+"/"+steps[i].Name+"\t"+string(steps[i].State))
	}
	return found, nil
}

func templateNames(ctx context.Context, c *client.Client, _ []string, _ string) ([]string, error) {
	templates, err := c.Templates(ctx, "", "")
	if err != nil {
		return nil, err
	}
	var found []string
	for i := range templates {
		found = append(found, templates[i].Namespace+"/"+templates[i].Name+"@"+templates[i].Version)
	}
	return found, nil
}

func queueNames(ctx context.Context, c *client.Client, _ []string, _ string) ([]string, error) {
	page, err := c.Queues(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for i := range page.Items {
		found = append(found, page.Items[i].Namespace)
	}
	return found, nil
}

// pluginNames offers plugins as people write them: handlers without their kind.
func pluginNames(ctx context.Context, c *client.Client, _ []string, begun string) ([]string, error) {
	plugins, err := c.Plugins(ctx)
	var found []string
	for i := range plugins {
		p := &plugins[i]
		name := p.Kind + "/" + p.Name
		if p.Kind == config.KindHandler && !strings.Contains(begun, "/") {
			name = p.Name
		}
		found = append(found, name+"\t"+p.State)
	}
	return found, err
}

func poolNames(ctx context.Context, c *client.Client, _ []string, _ string) ([]string, error) {
	page, err := c.Pools(ctx)
	var found []string
	for i := range page.Items {
		found = append(found, page.Items[i].Name)
	}
	return found, err
}

func breakerNames(ctx context.Context, c *client.Client, _ []string, _ string) ([]string, error) {
	page, err := c.Breakers(ctx)
	var found []string
	for i := range page.Items {
		found = append(found, page.Items[i].Name+"\t"+page.Items[i].State)
	}
	return found, err
}

// completions maps arguments, as usage lines name them, to their completions.
var completions = []struct {
	argument string // with the command's group in front if the argument has other meanings elsewhere
	most     int    // arguments; -1: any number
	list     names
}{
	{"TASK", 1, taskNames},
	{"TASK...", -1, taskNames},
	{"STEP", 1, stepNames},
	{"STEP...", -1, stepNames},
	{"NAMESPACE/NAME[@VERSION]", 1, templateNames},
	{"NAMESPACE", 1, queueNames},
	{"POOL", 1, poolNames},
	{"plugin NAME", 1, pluginNames},
	{"plugin [NAME]", 1, pluginNames},
	{"plugin NAME --artifact PATH", 1, pluginNames},
	{"breaker NAME", 1, breakerNames},
}

// addCompletions adds completions to every command with a known argument.
func (a *app) addCompletions(parent *cobra.Command) {
	for _, cmd := range parent.Commands() {
		a.addCompletions(cmd)
		_, argument, _ := strings.Cut(cmd.Use, " ")
		for _, c := range completions {
			if (argument == c.argument || parent.Name()+" "+argument == c.argument) && cmd.ValidArgsFunction == nil {
				cmd.ValidArgsFunction = a.complete(c.most, c.list)
			}
		}
	}
}
