package auth

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	keysTimeout  = 10 * time.Second
	maxKeysBytes = 1 << 20

	// unknownKeyRefresh is the minimum time between two reads of the issuer's keys caused
	// by a token that names an unknown key: strangers cannot make the host ask more
	// often.
	unknownKeyRefresh = 10 * time.Second
)

// keySet holds the issuer's public keys and reads them again when they are old.
type keySet struct {
	cfg JWTConfig
	now func() time.Time

	mu      sync.Mutex // held while reading: others wait for the answer
	keys    []jose.JSONWebKey
	triedAt time.Time
	readAt  time.Time
}

// find returns the keys that may have signed a token that names a key; a key without a
// name may have signed any token.
func (s *keySet) find(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.named(id)
	now := s.now()
	old := now.Sub(s.readAt)
	if old >= s.cfg.KeysRefresh || (len(found) == 0 && now.Sub(s.triedAt) >= unknownKeyRefresh) {
		// An issuer that is briefly unavailable must not lock everybody out.
		if err := s.readAgain(ctx, now); err != nil && (len(found) == 0 || old >= 4*s.cfg.KeysRefresh) {
			return nil, err
		}
		found = s.named(id)
	}
	return found, nil
}

// readAgain reads the keys. After a failure it does not retry with every request.
func (s *keySet) readAgain(ctx context.Context, now time.Time) error {
	if now.Sub(s.triedAt) < unknownKeyRefresh/10 {
		return errors.New("the issuer's keys could not be read a moment ago")
	}
	s.triedAt = now
	read := s.fetch
	if s.cfg.KeysFile != "" {
		read = func(context.Context) error { return s.readFile() }
	}
	err := read(ctx)
	if err != nil {
		// An issuer that hangs takes longer than the pause: without this, those that
		// waited would each wait for it again.
		s.triedAt = s.now()
	}
	return err
}

func (s *keySet) named(id string) []jose.JSONWebKey {
	var found, unnamed []jose.JSONWebKey
	for _, k := range s.keys {
		switch k.KeyID {
		case id:
			found = append(found, k)
		case "":
			unnamed = append(unnamed, k)
		}
	}
	if len(found) == 0 {
		return unnamed
	}
	return found
}

func (s *keySet) readFile() error {
	src, err := os.ReadFile(s.cfg.KeysFile)
	if err != nil {
		return fmt.Errorf("read auth.jwt.keys_file: %w", err)
	}
	keys, err := parseKeys(src)
	if err != nil {
		return fmt.Errorf("auth.jwt.keys_file %s: %w", s.cfg.KeysFile, err)
	}
	s.keys, s.readAt = keys, s.now()
	return nil
}

func (s *keySet) fetch(ctx context.Context) error {
	// The keys serve everybody: a client that disconnects must not end the reading.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.cfg.KeysURL, http.NoBody)
	if err != nil {
		return fmt.Errorf("fetch the issuer's keys: %w", err)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("auth.jwt.keys_url redirects: set it to the final address")
	}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("fetch the issuer's keys: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	src, err := io.ReadAll(io.LimitReader(resp.Body, maxKeysBytes))
	if err != nil {
		return fmt.Errorf("read the issuer's keys: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s instead of keys", s.cfg.KeysURL, resp.Status)
	}
	keys, err := parseKeys(src)
	if err != nil {
		return fmt.Errorf("%s: %w", s.cfg.KeysURL, err)
	}
	s.keys, s.readAt = keys, s.now()
	return nil
}

// parseKeys reads a JWKS, or public keys in PEM form. Only public signing keys count: a
// shared secret would let everybody who knows it sign.
func parseKeys(src []byte) ([]jose.JSONWebKey, error) {
	var keys []jose.JSONWebKey
	if block, rest := pem.Decode(src); block != nil {
		for ; block != nil; block, rest = pem.Decode(rest) {
			key, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("a PEM block is not a public key (PKIX): %w", err)
			}
			keys = append(keys, jose.JSONWebKey{Key: key})
		}
		return keys, nil
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(src, &set); err != nil {
		return nil, fmt.Errorf("neither PEM nor a set of JSON Web Keys: %w", err)
	}
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		// Keys of an unknown kind are skipped, since sets grow.
		if k.UnmarshalJSON(raw) == nil && k.IsPublic() && k.Valid() && (k.Use == "" || k.Use == "sig") {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no public key to verify signatures with")
	}
	return keys, nil
}
