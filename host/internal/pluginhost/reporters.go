package pluginhost

import (
	"cmp"
	"slices"

	"github.com/tasker-systems/tasker-host/sdk/wire"
)

// HealthService is something of kind health that a plugin serves, even if that plugin is
// currently down.
type HealthService struct {
	Name            string
	Checks, Reports bool // what it can do
}

// HealthServices returns what can be checked and reported to, ordered by name. For a
// plugin that is down it returns what it used to serve: silence does not mean health.
func (h *Host) HealthServices() []HealthService {
	h.router.mu.Lock()
	defer h.router.mu.Unlock()
	var all []HealthService
	for t := range h.router.owners {
		if t.kind != KindHealth {
			continue
		}
		abilities := h.router.abilities[t]
		all = append(all, HealthService{
			Name: t.name, Checks: slices.Contains(abilities, wire.AbilityCheck), Reports: slices.Contains(abilities, wire.AbilityReport),
		})
	}
	slices.SortFunc(all, func(a, b HealthService) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
