package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/client"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// token is the bearer token for a URL. It is not a flag because other users of the
// machine can read command lines.
func (a *app) token() (string, error) {
	if a.tokenFile == "" {
		return strings.TrimSpace(a.getenv("TASKER_TOKEN")), nil
	}
	text, err := os.ReadFile(a.tokenFile)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("--token-file: %s is empty", a.tokenFile)
	}
	return token, nil
}

func (a *app) tokenCommand() *cobra.Command {
	return group("token", "Create, list and revoke bearer tokens of the API", "",
		a.tokenCreateCommand(), a.tokenListCommand(), a.tokenRevokeCommand())
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var permissions []string
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a token and show it once", Args: arguments(1, 1, "a NAME"),
		Long: "Create a token and show it. It is never shown again.\n\nA permission has the form RESOURCE:LEVEL. RESOURCE is task, template, " +
			"queue, worker, plugin, config, system, token or *; LEVEL is read, operate or administer.",
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if len(permissions) == 0 {
				return usagef("say what the token may do: --permission task:operate")
			}
			t, err := c.CreateToken(ctx, client.TokenOrder{
				Name: args[0], Permissions: permissions, ExpiresIn: int64(expires / time.Second),
			})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(t)
			}
			a.printf("%s\n", t.Bearer)
			fmt.Fprintf(a.err, "token %s may %s until %s; it is not shown again\n", oneLine(t.Name), strings.Join(t.Permissions, ", "), when(t.ExpiresAt))
			return nil
		}),
	}
	cmd.Flags().StringSliceVar(&permissions, "permission", nil, "what the token may do, such as task:operate; repeat the flag or separate values with commas for several")
	cmd.Flags().DurationVar(&expires, "expires", 30*24*time.Hour, "how long the token is valid, at most 8784h")
	return cmd
}

func (a *app) tokenListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List tokens, newest first", Args: arguments(0, 0, ""),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			tokens, err := c.Tokens(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(readmodel.TokenPage{Items: orEmpty(tokens)})
			}
			var t table
			t.header("NAME", "ID", "STATE", "EXPIRES", "CREATED BY", "PERMISSIONS")
			for i := range tokens {
				k := &tokens[i]
				t.add(text(k.Name), text(k.ID), text(k.State), text(when(k.ExpiresAt)), text(k.CreatedBy), text(strings.Join(k.Permissions, " ")))
			}
			a.printTable(&t)
			return nil
		}),
	}
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke NAME or ID", Short: "Revoke a token", Args: arguments(1, 1, "a NAME or ID"),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			t, err := c.RevokeToken(ctx, args[0])
			return a.answer(t, err, func() { a.printf("revoked %s (%s)\n", oneLine(t.Name), t.ID) })
		}),
	}
}

func (a *app) auditCommand() *cobra.Command {
	var actor, cursor string
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List who changed what, newest first", Args: arguments(0, 0, ""),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			page, err := c.Audit(ctx, actor, cursor, limit)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(page)
			}
			var t table
			t.header("WHEN", "WHO", "WHAT", "SUBJECT", "OUTCOME", "REQUEST")
			for i := range page.Items {
				e := &page.Items[i]
				t.add(text(when(e.At)), text(e.Actor), text(e.Action), text(e.Subject), text(e.Outcome), text(e.RequestID))
			}
			a.printTable(&t)
			if page.NextCursor != "" {
				a.printf("more: --cursor %s\n", page.NextCursor)
			}
			return nil
		}),
	}
	list.Flags().StringVar(&actor, "actor", "", "show only what this principal did, such as token:deploy")
	list.Flags().StringVar(&cursor, "cursor", "", "continue a list from its next_cursor")
	limitFlag(list, &limit, 50, 500, "maximum number of entries")
	return group("audit", "See who changed what", "", list)
}
