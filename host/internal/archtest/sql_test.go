package archtest

import (
	"go/ast"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	selectStar = regexp.MustCompile(`(?i)\bselect\s+(distinct\s+)?\*`)
	timestamps = regexp.MustCompile(`(?i)\btimestamp\b(\s*\(\s*\d\s*\))?(\s+with\s+time\s+zone)?`)
	sqlComment = regexp.MustCompile(`(?s)--[^\n]*|/\*.*?\*/`)
)

// sqlFiles returns the text of every .sql file of the repository without its
// comments, by path. Line numbers stay.
func sqlFiles(t *testing.T) map[string]string {
	t.Helper()
	root, err := moduleRootOnce()
	require.NoError(t, err)
	texts := map[string]string{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".sql" {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		texts[relative(t, path)] = sqlComment.ReplaceAllStringFunc(string(src), func(comment string) string {
			return strings.Repeat("\n", strings.Count(comment, "\n"))
		})
		return nil
	})
	require.NoError(t, err)
	return texts
}

// Columns are listed: queue tables grow them between versions of pgmq, and
// reading rows by name fails on one it does not know.
func TestColumnsAreListed(t *testing.T) {
	t.Parallel()
	for path, text := range sqlFiles(t) {
		for _, at := range selectStar.FindAllStringIndex(text, -1) {
			t.Errorf("%s:%d: select *: list the columns", path, 1+strings.Count(text[:at[0]], "\n"))
		}
	}
	starred := allow(stars)
	for _, f := range files(t) {
		if f.pkg.room() == "host/internal/archtest" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			if text, err := strconv.Unquote(literal.Value); err == nil && selectStar.MatchString(text) && !starred.has(f.path) {
				t.Errorf("%s:%d: select *: list the columns", f.path, f.line(literal))
			}
			return true
		})
	}
	starred.requireUsed(t)
}

// Durable times are points in time: a timestamp without a zone means another
// one in every session.
func TestTimesHaveAZone(t *testing.T) {
	t.Parallel()
	for path, text := range sqlFiles(t) {
		for _, at := range timestamps.FindAllStringSubmatchIndex(text, -1) {
			if at[4] < 0 {
				t.Errorf("%s:%d: timestamp without time zone: use timestamptz", path, 1+strings.Count(text[:at[0]], "\n"))
			}
		}
	}
}

func TestThePatternsFindWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"SELECT  * from t": true, "select\n*": true, "select distinct * from t": true,
		"select count(*) from t": false, "select a * b": false, "selected *": false,
	} {
		require.Equal(t, want, selectStar.MatchString(text), text)
	}
	for text, want := range map[string]bool{
		"a timestamp,": true, "a timestamp(3) without time zone": true,
		"a timestamptz": false, "a timestamp with time zone": false, "clock_timestamp()": false, "a timestamp (3) with time zone": false,
	} {
		at := timestamps.FindStringSubmatchIndex(text)
		require.Equal(t, want, at != nil && at[4] < 0, text)
	}
}
