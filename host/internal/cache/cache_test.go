package cache_test

import (
	"strconv"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/cache"
)

func value(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "tasker_query_cache_"+name {
			return f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	require.Fail(t, "no metric "+name)
	return 0
}

func TestCacheKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	c := cache.New[int, string]("plans", 3, cache.NewMetrics(reg, "plans"))
	_, ok := c.Get(1)
	require.False(t, ok)
	for i := range 3 {
		require.Equal(t, strconv.Itoa(i), c.Put(i, strconv.Itoa(i)))
	}
	require.Equal(t, "1", c.Put(1, "another"), "the first stays")
	for i := 3; i < 20; i++ {
		_, ok := c.Get(0)
		require.True(t, ok, "what is used is kept")
		c.Put(i, strconv.Itoa(i))
	}
	kept := 0
	for i := range 20 {
		if v, ok := c.Get(i); ok {
			require.Equal(t, strconv.Itoa(i), v)
			kept++
		}
	}
	require.Equal(t, 3, kept)
	require.InDelta(t, 3, value(t, reg, "entries"), 0)
	require.InDelta(t, 17, value(t, reg, "evictions_total"), 0)
	require.InDelta(t, 17+3, value(t, reg, "hits_total"), 0)
	require.InDelta(t, 1+17, value(t, reg, "misses_total"), 0)
}

func TestOfWhatNobodyUsesTheEldestMakesRoom(t *testing.T) {
	t.Parallel()
	c := cache.New[int, int]("plans", 3, nil)
	for i := range 8 {
		c.Put(i, i)
	}
	for i := range 8 {
		_, kept := c.Get(i)
		require.Equal(t, i >= 5, kept, "%d", i)
	}
}

func TestCacheUnderLoad(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	c := cache.New[int, int]("plans", 10, cache.NewMetrics(reg, "plans"))
	var all sync.WaitGroup
	wrong := make([]int, 4)
	for w := range wrong {
		all.Go(func() {
			for i := range 5000 {
				key := (i*7 + w) % 50
				v, ok := c.Get(key)
				if !ok {
					v = c.Put(key, key*3)
				}
				if v != key*3 {
					wrong[w]++
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, make([]int, 4), wrong)
	require.InDelta(t, 10, value(t, reg, "entries"), 0)
}
