package pluginhost

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func testGeneration(number uint64, plugin string, handlers ...string) *generation {
	return &generation{number: number, plugin: plugin, handlers: handlers, idle: make(chan struct{}, 1), work: &stream{broken: make(chan struct{})}}
}

// put routes a generation's slot to it.
func (r *router) put(g *generation) error {
	return r.change(nil, edit{slot: g.plugin, to: served{primary: g}})
}

// A generation that was removed from the table and has no leases gets no new
// ones, so it can be killed. Callers always find a route while one generation
// follows another.
func TestLeases(t *testing.T) {
	t.Parallel()
	r := newRouter()
	retired := make(map[*generation]*atomic.Bool)
	generations := make([]*generation, 200)
	for i := range generations {
		generations[i] = testGeneration(uint64(i), "p", "a", "b")
		retired[generations[i]] = &atomic.Bool{}
	}
	require.NoError(t, r.put(generations[0]))

	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				g, ok := r.acquire("a", "")
				if !ok || retired[g].Load() {
					t.Errorf("route %v, on a retired generation %v", ok, ok)
					return
				}
				g.release(1)
			}
		})
	}
	for i, g := range generations[1:] {
		old := generations[i]
		require.NoError(t, r.put(g))
		require.NoError(t, old.wait(t.Context()))
		retired[old].Store(true)
	}
	close(stop)
	wg.Wait()
	require.Zero(t, generations[199].leases.Load())
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	r := newRouter()
	a1, b1 := testGeneration(1, "a", "x", "y"), testGeneration(2, "b", "z")
	require.NoError(t, r.put(a1))
	require.NoError(t, r.put(b1))
	require.Equal(t, []Service{{Name: "a", Handlers: []string{"x", "y"}}, {Name: "b", Handlers: []string{"z"}}}, r.table.Load().services)

	// A new generation replaces the old one as a whole.
	a2 := testGeneration(3, "a", "y")
	require.NoError(t, r.put(a2))
	_, ok := r.acquire("x", "")
	require.False(t, ok)
	g, ok := r.acquire("y", "")
	require.True(t, ok)
	require.Same(t, a2, g)
	r.remove(a1, nil) // gone already
	require.Len(t, r.table.Load().handlers, 2)

	// While a plugin is down, it keeps its handlers.
	r.remove(a2, nil)
	require.ErrorContains(t, r.put(testGeneration(4, "c", "y")), `plugin "c": handler "y" is already served by plugin "a"`)
	require.Equal(t, []Service{{Name: "b", Handlers: []string{"z"}}}, r.table.Load().services)
	<-r.changed
}

func TestBackOff(t *testing.T) {
	t.Parallel()
	cfg := Restart{Base: 100 * time.Millisecond, Cap: 30 * time.Second, Exits: 5, Window: time.Minute, Open: time.Minute}
	b := newCrashBreaker("p", cfg, discard())
	for i := range 40 {
		most := cfg.Cap
		if i < 9 {
			most = min(cfg.Cap, cfg.Base<<i)
		}
		d := b.delay()
		require.Less(t, d, most)
		require.GreaterOrEqual(t, d, time.Duration(0))
	}
	b.stable()
	require.Less(t, b.delay(), cfg.Base)

	for range 4 {
		b.exited()
	}
	require.Zero(t, b.openFor())
	b.exited()
	require.InDelta(t, time.Minute, b.openFor(), float64(time.Second))
	b.exited() // no harm
}
