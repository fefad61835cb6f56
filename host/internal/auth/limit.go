package auth

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxClients bounds how many clients a limiter remembers.
const maxClients = 10_000

// Limiter bounds how often each client may do something. It is safe for concurrent use.
type Limiter struct {
	limit rate.Limit
	burst int
	now   func() time.Time

	mu      sync.Mutex
	clients map[string]*rate.Limiter
}

// NewLimiter allows perSecond on average, and burst at once after a rest.
func NewLimiter(perSecond, burst int, now func() time.Time) *Limiter {
	return &Limiter{limit: rate.Limit(perSecond), burst: burst, now: now, clients: map[string]*rate.Limiter{}}
}

// Allow takes one token from the client's bucket. wait is how long a client without
// tokens should stay away; 0: it may proceed.
func (l *Limiter) Allow(client string) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	c, known := l.clients[client]
	if !known {
		if len(l.clients) >= maxClients {
			l.forget(now)
		}
		c = rate.NewLimiter(l.limit, l.burst)
		l.clients[client] = c
	}
	r := c.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// forget drops the clients whose bucket is full again, which loses nothing. If nearly all
// are busy, it drops some of them until a tenth of the places is free, so that not every
// newcomer causes a scan of all clients.
func (l *Limiter) forget(now time.Time) {
	for name, c := range l.clients {
		if c.TokensAt(now) >= float64(l.burst) {
			delete(l.clients, name)
		}
	}
	for name := range l.clients {
		if len(l.clients) < maxClients-maxClients/10 {
			return
		}
		delete(l.clients, name)
	}
}
