package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// ErrRefused is wrapped by errors about an invalid bearer.
var ErrRefused = errors.New("refused")

func refused(text string) error { return fmt.Errorf("%w: %s", ErrRefused, text) }

// A token is tsk_ID_SECRET: the identifier finds its row, the secret proves it. The
// secret has 130 random bits, so that a plain hash of it cannot be found by search; only
// the hash is stored.
const (
	tokenPrefix  = "tsk_"
	tokenIDLen   = 12
	secretLen    = 26
	maxBearerLen = 16 << 10
)

// NewToken generates a token. bearer is shown to its owner once; id and hash are stored.
func NewToken() (id, bearer string, hash []byte) {
	id = strings.ToLower(rand.Text()[:tokenIDLen])
	secret := strings.ToLower(rand.Text())
	return id, tokenPrefix + id + "_" + secret, hashOf(secret)
}

// splitToken returns the parts of a token that the host may have issued.
func splitToken(bearer string) (id, secret string, ok bool) {
	rest, ok := strings.CutPrefix(bearer, tokenPrefix)
	if !ok || len(rest) != tokenIDLen+1+secretLen || rest[tokenIDLen] != '_' {
		return "", "", false
	}
	return rest[:tokenIDLen], rest[tokenIDLen+1:], true
}

func hashOf(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

// StoredToken is what is stored of a token.
type StoredToken struct {
	ID, Name    string
	Hash        []byte
	Permissions []string
	ExpiresAt   time.Time
}

// TokenSource reads the tokens that are neither revoked nor expired.
type TokenSource interface {
	LiveTokens(ctx context.Context) ([]StoredToken, error)
}

// Tokens recognizes the host's own tokens. It keeps all of them in memory and reads them
// again when they are older than the refresh interval, so that a wrong token costs the
// database nothing.
type Tokens struct {
	source  TokenSource
	refresh time.Duration
	now     func() time.Time

	mu       sync.Mutex // held while reading: others wait for the answer
	byID     map[string]StoredToken
	readAt   time.Time
	failure  error // of the last read, nil if it succeeded
	failedAt time.Time
}

// unknownRefresh is the maximum age of the tokens when one is found unknown: a token just
// issued by another host must work.
const unknownRefresh = time.Second

const (
	// readTimeout bounds a read, for which all requests may be waiting: a database whose
	// machine has vanished does not even refuse.
	readTimeout = 5 * time.Second

	// failureHolds is how long after a failed read its error is the answer: those that
	// waited for it do not each wait for another.
	failureHolds = time.Second
)

// NewTokens returns a recognizer for the tokens of a source.
func NewTokens(source TokenSource, refresh time.Duration, now func() time.Time) *Tokens {
	return &Tokens{source: source, refresh: refresh, now: now}
}

// Authenticate returns the principal of a token.
func (t *Tokens) Authenticate(ctx context.Context, bearer string) (Principal, error) {
	id, secret, ok := splitToken(bearer)
	if !ok {
		return Principal{}, refused("the token was not issued by this system")
	}
	stored, known, err := t.find(ctx, id)
	if err != nil {
		return Principal{}, err
	}
	// The comparison is also made if there is no such token, so that the time of an
	// answer reveals nothing.
	same := subtle.ConstantTimeCompare(hashOf(secret), stored.Hash) == 1
	if !known || !same {
		return Principal{}, refused("the token is unknown, expired or revoked")
	}
	if !t.now().Before(stored.ExpiresAt) {
		return Principal{}, refused("the token is unknown, expired or revoked")
	}
	return Principal{Kind: ByToken, Name: stored.Name, Permissions: KnownPermissions(stored.Permissions)}, nil
}

func (t *Tokens) find(ctx context.Context, id string) (StoredToken, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	age := t.now().Sub(t.readAt)
	stored, known := t.byID[id]
	if t.byID == nil || age >= t.refresh || (!known && age >= unknownRefresh) {
		if err := t.read(ctx); err != nil {
			return StoredToken{}, false, err
		}
		stored, known = t.byID[id]
	}
	return stored, known, nil
}

// Forget makes the tokens be read again before the next check, because one was issued or
// revoked here.
func (t *Tokens) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID, t.failure = nil, nil
}

func (t *Tokens) read(ctx context.Context) error {
	began := t.now()
	if t.failure != nil && began.Sub(t.failedAt) < failureHolds {
		return t.failure
	}
	// The tokens serve everybody: a client that disconnects must not end the reading.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	all, err := t.source.LiveTokens(ctx)
	if err != nil {
		t.failure, t.failedAt = fmt.Errorf("read the tokens: %w", err), t.now()
		return t.failure
	}
	byID := make(map[string]StoredToken, len(all))
	for i := range all {
		byID[all[i].ID] = all[i]
	}
	t.byID, t.readAt, t.failure = byID, began, nil
	return nil
}
