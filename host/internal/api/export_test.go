package api

import (
	"net/http"
	"strings"
)

// Permissions returns the table for external tests: the permission of each route as text,
// empty for public routes.
func Permissions() map[string]string {
	out := map[string]string{}
	for route, r := range permissions() {
		out[route] = ""
		if !r.public {
			out[route] = r.need.String()
		}
	}
	return out
}

// AddForgottenRoute adds a route that is not in the table.
func AddForgottenRoute(s *Server, pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Audited returns, by route, whether its use is recorded in the audit.
func Audited() map[string]bool {
	out := map[string]bool{}
	for route, r := range permissions() {
		method, _, _ := strings.Cut(route, " ")
		out[route] = r.audited(method)
	}
	return out
}
