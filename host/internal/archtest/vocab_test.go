package archtest

import (
	"go/ast"
	"go/token"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// The diagram in the comment of a table of edges names every state that the
// table knows, so that a state added to the one is drawn in the other.
func TestTheDiagramsOfStatesNameThemAll(t *testing.T) {
	t.Parallel()
	comments := map[string]string{}
	for _, f := range files(t) {
		if f.pkg.room() != "sdk/vocab" || f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.VAR || len(decl.Specs) != 1 {
				continue
			}
			comments[decl.Specs[0].(*ast.ValueSpec).Names[0].Name] = decl.Doc.Text()
		}
	}
	for _, state := range vocab.TaskStates {
		require.Regexp(t, `\b`+regexp.QuoteMeta(string(state))+`\b`, comments["TaskEdges"])
	}
	for _, state := range vocab.StepStates {
		require.Regexp(t, `\b`+regexp.QuoteMeta(string(state))+`\b`, comments["StepEdges"])
	}
}
