package pluginhost

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/sony/gobreaker/v2"
)

// crashBreaker decides when a plugin is restarted: soon after one exit, later after each
// further one, and much later when it keeps crashing. To the breaker an exit is a
// failure, and a process that has served for a while is a success; when the breaker lets
// a plugin try again, one exit opens it again.
type crashBreaker struct {
	cfg Restart
	cb  *gobreaker.CircuitBreaker[struct{}]

	mu    sync.Mutex // guards the fields below
	row   int        // consecutive starts that failed
	until time.Time  // the breaker is open until then
}

var errExited = errors.New("exited")

func newCrashBreaker(plugin string, cfg Restart, log hclog.Logger) *crashBreaker {
	b := &crashBreaker{cfg: cfg}
	b.cb = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name: plugin, MaxRequests: 1,
		Interval: cfg.Window, BucketPeriod: max(cfg.Window/10, 1), // a rolling window
		Timeout:     cfg.Open,
		ReadyToTrip: func(c gobreaker.Counts) bool { return int(c.TotalFailures) >= cfg.Exits },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			log.Warn("crash-loop breaker of the plugin changed", "from", from.String(), "to", to.String())
			if to == gobreaker.StateOpen {
				b.mu.Lock()
				b.until = time.Now().Add(cfg.Open)
				b.mu.Unlock()
			}
		},
	})
	return b
}

// exited records that a process ended without being asked to. gobreaker's own error only
// says that the breaker is already open.
func (b *crashBreaker) exited() {
	_, _ = b.cb.Execute(func() (struct{}, error) { return struct{}{}, errExited })
}

// stable records that a process has served for a while.
func (b *crashBreaker) stable() {
	_, _ = b.cb.Execute(func() (struct{}, error) { return struct{}{}, nil })
	b.mu.Lock()
	b.row = 0
	b.mu.Unlock()
}

// delay returns how long to wait before the next start. It is random, so that many
// plugins, or hosts, that failed together do not start together.
func (b *crashBreaker) delay() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	most := b.cfg.Cap
	if b.row < 30 && b.cfg.Base<<b.row < most {
		most = b.cfg.Base << b.row
	}
	b.row++
	return rand.N(most)
}

// openFor returns how long the breaker stays open; zero if it is not.
func (b *crashBreaker) openFor() time.Duration {
	if b.cb.State() != gobreaker.StateOpen {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(time.Until(b.until), 0) + time.Millisecond // it leaves the open state after its end, not at it
}
