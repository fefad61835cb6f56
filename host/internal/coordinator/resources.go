package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Facts are the resources that pools share.
type Facts struct {
	Connections    int   // of this host's own pool of connections
	ServerMax      int   // connections that the server accepts from clients; 0: unknown
	OtherHosts     int   // living hosts besides this one
	OthersTake     int   // connections that these may use together
	MemoryFree     int64 // bytes that this host may still use; 0: unknown
	MemoryFreeText string
}

// Finding is something that exceeds the resources, or nearly does.
type Finding struct {
	Fatal   bool
	Message string // including the arithmetic
}

func messages(all []Finding) []string {
	var out []string
	for _, f := range all {
		out = append(out, f.Message)
	}
	return out
}

// Reserve returns how many of n connections are kept from executors, for heartbeats,
// sweeps, claims and people.
func Reserve(n int) int {
	r := int(math.Round(0.2 * float64(n)))
	switch {
	case n <= 20:
		return max(r, 2)
	case n <= 50:
		return min(max(r, 3), 10)
	case n <= 100:
		return min(max(r, 5), 20)
	default:
		return min(max(r, 10), n/4)
	}
}

// demand is what one pool may require of the resources.
type demand struct {
	name        string
	min, max    int
	connections int
	memory      int64
}

// checkResources compares what pools may use with what is available.
func checkResources(f Facts, known bool, memoryShare float64, pools []demand) []Finding {
	var found []Finding
	say := func(fatal bool, format string, args ...any) {
		found = append(found, Finding{fatal, fmt.Sprintf(format, args...)})
	}
	slices.SortFunc(pools, func(a, b demand) int { return cmp.Compare(a.name, b.name) })
	var least, most int
	var terms []string
	var memory int64
	for _, p := range pools {
		memory += int64(p.max) * p.memory
		if p.connections == 0 {
			continue
		}
		least += p.min * p.connections
		most += p.max * p.connections
		terms = append(terms, fmt.Sprintf("%s %d", p.name, p.max*p.connections))
	}
	if !known {
		say(false, "the resources could not be read: nothing was checked")
		return found
	}
	reserve := Reserve(f.Connections)
	available := f.Connections - reserve
	own := fmt.Sprintf("database.max_connections %d - %d in reserve = %d", f.Connections, reserve, available)
	switch {
	case least > available:
		say(true, "the pools need at least %d connections, but have %s", least, own)
	case most > f.Connections:
		say(true, "the pools may take %d connections (%s), but have %s", most, strings.Join(terms, " + "), own)
	case most > available:
		say(false, "the pools may take %d connections (%s) and leave less than the reserve: %s", most, strings.Join(terms, " + "), own)
	}
	if f.ServerMax > 0 {
		kept := Reserve(f.ServerMax)
		if all := f.Connections + f.OthersTake; all > f.ServerMax-kept {
			say(all > f.ServerMax, "the hosts may take %d connections (this one %d + %d others %d), but the server has max_connections %d - %d in reserve = %d",
				all, f.Connections, f.OtherHosts, f.OthersTake, f.ServerMax, kept, f.ServerMax-kept)
		}
	}
	if budget := int64(memoryShare * float64(f.MemoryFree)); f.MemoryFree > 0 && memory > budget {
		say(false, "the pools may take %d MiB of memory, but %d MiB are free and they may take %.0f%% of that: %d MiB",
			memory>>20, f.MemoryFree>>20, 100*memoryShare, budget>>20)
	}
	return found
}

// CheckResources compares what the pools may use with what is available. With
// enforcement, fatal findings are returned as the error, a [*RefusedError].
func (c *Coordinator) CheckResources(ctx context.Context) ([]string, error) {
	c.adopt()
	found := c.checkWith(ctx, "", Settings{})
	if c.cfg.Load().Enforce {
		var fatal []string
		for _, f := range found {
			if f.Fatal {
				fatal = append(fatal, f.Message)
			}
		}
		if fatal != nil {
			return messages(found), &RefusedError{Problems: fatal}
		}
	}
	return messages(found), nil
}

// checkWith checks the resources as if a pool had other settings.
func (c *Coordinator) checkWith(ctx context.Context, name string, other Settings) []Finding {
	c.readFacts(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	demands := make([]demand, 0, len(c.pools))
	for _, m := range c.pools {
		s := m.settings
		if m.name == name {
			s = other
		}
		demands = append(demands, demand{name: m.name, min: s.Min, max: s.Max, connections: m.Connections, memory: m.Memory})
	}
	return checkResources(c.facts, c.known, c.cfg.Load().MemoryShare, demands)
}

// budget returns how many more executors of a pool the resources allow; negative:
// unknown. The caller holds the lock.
func (c *Coordinator) budget(m *managed) int {
	if !c.known {
		return -1
	}
	left := -1
	if m.Connections > 0 {
		taken := 0
		for _, other := range c.pools {
			taken += other.Connections * max(other.target, other.State().Current())
		}
		left = max(c.facts.Connections-Reserve(c.facts.Connections)-taken, 0) / m.Connections
	}
	if m.Memory > 0 && c.facts.MemoryFree > 0 {
		if n := int(c.cfg.Load().MemoryShare * float64(c.facts.MemoryFree) / float64(m.Memory)); left < 0 || n < left {
			left = n
		}
	}
	return left
}
