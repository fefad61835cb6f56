package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// JWTConfig defines which JSON Web Tokens are accepted.
type JWTConfig struct {
	Issuer, Audience string
	KeysURL          string // JWKS of the issuer
	KeysFile         string // or a file: JWKS, or public keys as PEM
	KeysRefresh      time.Duration
	Algorithms       []string // public-key signatures only
	ClockSkew        time.Duration
	PermissionsClaim string
}

// JWT recognizes the tokens of an identity provider.
type JWT struct {
	cfg        JWTConfig
	algorithms []jose.SignatureAlgorithm
	keys       *keySet
	now        func() time.Time
}

// NewJWT returns a recognizer. Keys in a file are read now, those at a URL with the first
// token.
func NewJWT(cfg JWTConfig, now func() time.Time) (*JWT, error) {
	j := &JWT{cfg: cfg, now: now, keys: &keySet{cfg: cfg, now: now}}
	for _, a := range cfg.Algorithms {
		j.algorithms = append(j.algorithms, jose.SignatureAlgorithm(a))
	}
	if cfg.KeysFile != "" {
		if err := j.keys.readFile(); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// Authenticate returns the principal of a token. The algorithm must be one of those
// configured and match the key; the token's own claim of where its keys are is ignored.
// The token must have an expiry.
func (j *JWT) Authenticate(ctx context.Context, bearer string) (Principal, error) {
	token, err := jwt.ParseSigned(bearer, j.algorithms)
	if err != nil || len(token.Headers) != 1 {
		return Principal{}, refused("the bearer is not a JSON Web Token signed with " + strings.Join(j.cfg.Algorithms, ", "))
	}
	header := token.Headers[0]
	keys, err := j.keys.find(ctx, header.KeyID)
	if err != nil {
		return Principal{}, err
	}
	var claims jwt.Claims
	all := map[string]json.RawMessage{}
	verified := slices.ContainsFunc(keys, func(k jose.JSONWebKey) bool {
		if k.Algorithm != "" && k.Algorithm != header.Algorithm {
			return false
		}
		return token.Claims(k.Key, &claims, &all) == nil
	})
	if !verified {
		return Principal{}, refused("the token's signature does not verify with a key of the issuer")
	}
	return j.principal(claims, all)
}

func (j *JWT) principal(claims jwt.Claims, all map[string]json.RawMessage) (Principal, error) {
	err := claims.ValidateWithLeeway(jwt.Expected{
		Issuer: j.cfg.Issuer, AnyAudience: jwt.Audience{j.cfg.Audience}, Time: j.now(),
	}, j.cfg.ClockSkew)
	switch {
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return Principal{}, refused("the token is of another issuer")
	case errors.Is(err, jwt.ErrInvalidAudience):
		return Principal{}, refused("the token is for another audience")
	case errors.Is(err, jwt.ErrExpired):
		return Principal{}, refused("the token has expired")
	case err != nil:
		return Principal{}, refused("the token is not valid yet")
	case claims.Expiry == nil:
		return Principal{}, refused("the token has no expiry")
	case claims.Subject == "" || len(claims.Subject) > maxSubject:
		return Principal{}, refused("the token has no subject, or one that is too long")
	}
	return Principal{
		Kind: ByJWT, Name: claims.Subject, Permissions: KnownPermissions(words(all[j.cfg.PermissionsClaim])),
	}, nil
}

// maxSubject bounds the length of a principal's name.
const maxSubject = 255

// words reads a claim that is a list of strings, or one string with spaces.
func words(raw json.RawMessage) []string {
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return list
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return strings.Fields(text)
	}
	return nil
}

// Any recognizes a bearer by its form: the host's own tokens have a form of their own,
// and everything else goes to the identity provider.
type Any struct {
	Tokens *Tokens
	JWT    *JWT // nil: none are accepted
}

// Authenticate returns the principal of a bearer.
func (a Any) Authenticate(ctx context.Context, bearer string) (Principal, error) {
	if len(bearer) > maxBearerLen {
		return Principal{}, refused("the token is too long")
	}
	if a.JWT == nil || strings.HasPrefix(bearer, tokenPrefix) {
		return a.Tokens.Authenticate(ctx, bearer)
	}
	p, err := a.JWT.Authenticate(ctx, bearer)
	if err != nil && !errors.Is(err, ErrRefused) {
		return p, fmt.Errorf("check a JSON Web Token: %w", err)
	}
	return p, err
}
