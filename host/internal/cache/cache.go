// Package cache keeps values that do not change, up to a limit, and counts how often
// that helps. Readers take no lock. When the cache is full, a value that was not used
// since the last look makes room.
//
// There is no time to live and no invalidation: it is for values that stay valid for
// ever, such as the plan of a template version. Values that may change do not belong
// here.
package cache

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts for all caches of a host, labelled by the cache's name.
type Metrics struct {
	hits, misses, evictions *prometheus.CounterVec
	entries                 *prometheus.GaugeVec
}

// NewMetrics registers the metrics; names are the names of all caches.
func NewMetrics(reg prometheus.Registerer, names ...string) *Metrics {
	counter := func(what, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tasker_query_cache_" + what + "_total", Help: help}, []string{"cache"})
	}
	m := &Metrics{
		hits:      counter("hits", "Lookups that needed no query, by cache."),
		misses:    counter("misses", "Lookups that the cache could not answer, by cache."),
		evictions: counter("evictions", "Values evicted to make room, by cache; many evictions mean that query_cache.max_plans is too small."),
		entries: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tasker_query_cache_entries", Help: "Cached values, by cache.",
		}, []string{"cache"}),
	}
	for _, name := range names {
		m.of(name)
	}
	reg.MustRegister(m.hits, m.misses, m.evictions, m.entries)
	return m
}

// counters are the counters of one cache.
type counters struct {
	hits, misses, evictions prometheus.Counter
	entries                 prometheus.Gauge
}

func (m *Metrics) of(name string) counters {
	return counters{m.hits.WithLabelValues(name), m.misses.WithLabelValues(name), m.evictions.WithLabelValues(name), m.entries.WithLabelValues(name)}
}

// Cache keeps up to a limit of values by key. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	count   counters
	entries sync.Map // K to *entry[V]

	mu   sync.Mutex // guards the fields below
	keys []K        // used as a ring
	hand int        // whose turn it is to make room
}

type entry[V any] struct {
	value V
	used  atomic.Bool // since the hand was last here
}

// New creates a cache for at most limit values, at least one. The name is its label in
// the metrics; m may be nil.
func New[K comparable, V any](name string, limit int, m *Metrics) *Cache[K, V] {
	if m == nil {
		m = NewMetrics(prometheus.NewRegistry())
	}
	return &Cache[K, V]{count: m.of(name), keys: make([]K, 0, max(limit, 1))}
}

// Get returns the value that is kept under a key.
func (c *Cache[K, V]) Get(key K) (value V, ok bool) {
	found, ok := c.entries.Load(key)
	if !ok {
		c.count.misses.Inc()
		return value, false
	}
	c.count.hits.Inc()
	e := found.(*entry[V])
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.value, true
}

// Put keeps a value, unless there is one under the key already, and returns the one
// that is kept.
func (c *Cache[K, V]) Put(key K, value V) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found, ok := c.entries.Load(key); ok {
		return found.(*entry[V]).value
	}
	if len(c.keys) < cap(c.keys) {
		c.keys = append(c.keys, key)
	} else {
		c.makeRoom(key)
	}
	c.entries.Store(key, &entry[V]{value: value})
	c.count.entries.Set(float64(len(c.keys)))
	return value
}

// makeRoom gives the place of a value that was not used recently to another key.
func (c *Cache[K, V]) makeRoom(key K) {
	for {
		old := c.keys[c.hand]
		found, _ := c.entries.Load(old)
		if e := found.(*entry[V]); !e.used.Swap(false) {
			c.entries.Delete(old)
			c.count.evictions.Inc()
			c.keys[c.hand] = key
			c.hand = (c.hand + 1) % len(c.keys)
			return
		}
		c.hand = (c.hand + 1) % len(c.keys)
	}
}
