package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

// limitFlag adds --limit to a command that lists; it accepts 1 to most.
func limitFlag(cmd *cobra.Command, n *int, standard, most int, what string) {
	*n = standard
	cmd.Flags().Var(&limit{n, most}, "limit", fmt.Sprintf("%s, 1 to %d", what, most))
}

type limit struct {
	n    *int
	most int
}

func (l *limit) Type() string   { return "int" }
func (l *limit) String() string { return strconv.Itoa(*l.n) }

// Set implements pflag.Value.
func (l *limit) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > l.most {
		return fmt.Errorf("want 1 to %d", l.most)
	}
	*l.n = n
	return nil
}
