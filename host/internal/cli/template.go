package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func (a *app) templateCommand() *cobra.Command {
	return group("template", "Apply, list and check task templates", "",
		a.applyCommand(), a.validateCommand(), a.templateListCommand(), a.templateShowCommand(), a.templateGraphCommand())
}

func (a *app) applyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "apply FILE...", Short: "Store templates", Args: arguments(1, -1, "a FILE"),
		Long: "Store templates. A stored version never changes: to change a template, raise its version. Applying the same file " +
			"again has no effect. The file name - is standard input.",
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			return a.eachFile(args, func(file string, src []byte) (readmodel.Template, string, error) {
				t, created, err := c.ApplyTemplate(ctx, file, src)
				if !created {
					return t, "unchanged", err
				}
				return t, "applied", err
			})
		}),
	}
}

func (a *app) validateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "validate FILE...", Short: "Check templates without storing them", Args: arguments(1, -1, "a FILE"),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			return a.eachFile(args, func(file string, src []byte) (readmodel.Template, string, error) {
				t, err := c.ValidateTemplate(ctx, file, src)
				return t, "valid", err
			})
		}),
	}
}

// eachFile sends every file, so that all faults are shown at once. The error is that
// of the first file that failed.
func (a *app) eachFile(files []string, send func(file string, src []byte) (readmodel.Template, string, error)) error {
	var errs []error
	for _, file := range files {
		src, err := a.readInput(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(src) == 0 {
			errs = append(errs, fmt.Errorf("%s is empty: a template has namespace, name, version and steps", file))
			continue
		}
		t, verdict, err := send(file, src)
		if errors.Is(err, client.ErrUnreachable) {
			return err
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
			continue
		}
		if err := a.showVerdict(file, verdict, t); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

func (a *app) showVerdict(file, verdict string, t readmodel.Template) error {
	if a.json {
		return a.printLine(t)
	}
	a.printf("%s %s/%s %s (%d steps)\n", verdict, t.Namespace, t.Name, t.Version, len(t.Steps))
	for _, w := range t.Warnings {
		fmt.Fprintf(a.err, "%s %s: %s\n", a.paint(yellow, "warning:"), oneLine(file), oneLine(w))
	}
	return nil
}

func (a *app) templateListCommand() *cobra.Command {
	var namespace, name string
	cmd := &cobra.Command{
		Use: "list", Short: "List templates", Args: arguments(0, 0, ""),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			templates, err := c.Templates(ctx, namespace, name)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(readmodel.TemplatePage{Items: orEmpty(templates)})
			}
			a.listTemplates(templates)
			return nil
		}),
	}
	cmd.Flags().StringVar(&namespace, "namespace", "", "show only this namespace")
	cmd.Flags().StringVar(&name, "name", "", "show only templates with this name")
	return cmd
}

func orEmpty[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

func (a *app) listTemplates(templates []readmodel.TemplateSummary) {
	if len(templates) == 0 {
		a.printf("no templates; 'tasker template apply FILE' stores one\n")
		return
	}
	var t table
	t.header("TEMPLATE", "VERSION", "STEPS", "DESCRIPTION", "WARNINGS")
	for _, item := range templates {
		t.add(text(item.Namespace+"/"+item.Name), text(item.Version), text(strconv.Itoa(item.Steps)),
			text(item.Description), cell{text: oneLine(strings.Join(item.Warnings, "; ")), colour: yellow})
	}
	a.printTable(&t)
}

func (a *app) templateShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show NAMESPACE/NAME[@VERSION]", Short: "Show a template (without a version: the highest one)",
		Args: arguments(1, 1, "NAMESPACE/NAME[@VERSION]"),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			t, err := namedTemplate(ctx, c, args[0])
			return a.answer(t, err, func() { a.showTemplate(&t) })
		}),
	}
}

// namedTemplate gets the template that an argument names.
func namedTemplate(ctx context.Context, c *client.Client, ref string) (readmodel.Template, error) {
	name, version, versioned := strings.Cut(ref, "@")
	namespace, name, ok := strings.Cut(name, "/")
	if !ok || (versioned && version == "") {
		return readmodel.Template{}, usagef("%q does not name a template: want NAMESPACE/NAME or NAMESPACE/NAME@VERSION", ref)
	}
	if version == "" {
		version = "latest"
	}
	return c.Template(ctx, namespace, name, version)
}

func (a *app) showTemplate(t *readmodel.Template) {
	a.printf("%s/%s %s\n", oneLine(t.Namespace), oneLine(t.Name), oneLine(t.Version))
	if t.Description != "" {
		a.printf("%s\n", printable(strings.TrimSpace(t.Description)))
	}
	switch t.Identity {
	case "reject":
		a.printf("a submission with the same context as an existing task is refused\n")
	case "return_existing":
		a.printf("a submission with the same context as an existing task returns that task\n")
	}
	for _, w := range t.Warnings {
		a.printf("%s %s\n", a.paint(yellow, "warning:"), oneLine(w))
	}
	a.printf("\n")
	var steps table
	steps.header("#", "STEP", "HANDLER", "AFTER", "RETRY", "TIMEOUT")
	for i, s := range t.Steps {
		handler := text(s.Handler)
		if !s.Served {
			handler = cell{text: oneLine(s.Handler) + " (nobody serves it)", colour: yellow}
		}
		steps.add(text(strconv.Itoa(i)), text(s.Name), handler, text(strings.Join(s.DependsOn, ", ")),
			text(retryText(s.Retry)), text(s.Timeout))
	}
	a.printTable(&steps)
	if len(t.Environments) > 0 {
		a.printf("\noverridden in environments: %s\n", oneLine(strings.Join(t.Environments, ", ")))
	}
}

func retryText(r readmodel.TemplateRetry) string {
	switch {
	case !r.Retryable || r.MaxAttempts <= 1:
		return "never"
	case r.Backoff == "none":
		return fmt.Sprintf("%d attempts, without delay", r.MaxAttempts)
	case r.Backoff == "fixed":
		return fmt.Sprintf("%d attempts, %s apart", r.MaxAttempts, r.Base)
	default:
		return fmt.Sprintf("%d attempts, %s from %s to %s", r.MaxAttempts, r.Backoff, r.Base, r.Cap)
	}
}
