package api

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// parameterGate is the middleware in front of every route that refuses what huma would
// accept silently: repeated parameters, of which huma reads the first; a query that
// cannot be parsed, of which it reads the rest; and keys that are present but empty,
// which it takes for absent.
func parameterGate(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	query, err := url.ParseQuery(r.URL.RawQuery)
	var issues []Issue
	if err != nil {
		issues = append(issues, Issue{Location: "query", Detail: "cannot be read: separate parameters by &, and encode other special characters as % and two hexadecimal digits"})
	}
	for _, p := range ctx.Operation().Parameters {
		var values []string
		switch p.In {
		case "query":
			values = query[p.Name]
		case "header":
			values = r.Header.Values(p.Name)
		}
		list := p.Explode != nil && *p.Explode
		switch {
		case len(values) > 1 && !list:
			issues = append(issues, Issue{Location: p.In + "." + p.Name, Detail: "is given twice: send one"})
		case len(values) == 1 && values[0] == "" && strings.HasSuffix(p.Name, "-Key"):
			issues = append(issues, Issue{Location: p.In + "." + p.Name, Detail: "is empty: send a key, or leave it out"})
		}
	}
	if issues != nil {
		writeProblem(w, r, newProblem(http.StatusUnprocessableEntity, CodeValidationFailed, "the request has values that are not allowed", issues...))
		return
	}
	next(ctx)
}
