package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/auth"
)

// source is a store of tokens that counts how often it is read.
type source struct {
	tokens []auth.StoredToken
	reads  int
	err    error
}

func (s *source) LiveTokens(context.Context) ([]auth.StoredToken, error) {
	s.reads++
	return s.tokens, s.err
}

func TestTokens(t *testing.T) {
	t.Parallel()
	now := time.Now()
	id, bearer, hash := auth.NewToken()
	src := &source{tokens: []auth.StoredToken{{
		ID: id, Name: "deploy", Hash: hash, Permissions: []string{"task:operate"}, ExpiresAt: now.Add(time.Hour),
	}}}
	tokens := auth.NewTokens(src, 5*time.Second, func() time.Time { return now })
	p, err := tokens.Authenticate(t.Context(), bearer)
	require.NoError(t, err)
	require.Equal(t, "token:deploy", p.String())
	require.True(t, p.Permissions.Allows(auth.Permission{Resource: auth.Task, Level: auth.Read}))
	require.False(t, p.Permissions.Allows(auth.Permission{Resource: auth.Task, Level: auth.Administer}))

	_, other, _ := auth.NewToken()
	wrong := bearer[:len(bearer)-1] + map[bool]string{true: "b", false: "a"}[bearer[len(bearer)-1] == 'a']
	for range 1000 { // malformed tokens cost the database nothing
		for _, bad := range []string{"", "tsk_", wrong, other, strings.ToUpper(bearer), bearer + "x", bearer[:30], strings.TrimPrefix(bearer, "tsk_")} {
			_, err := tokens.Authenticate(t.Context(), bad)
			require.ErrorIs(t, err, auth.ErrRefused, bad)
			require.NotContains(t, err.Error(), id)
		}
	}
	require.Equal(t, 1, src.reads)

	// Created by another host, and then by this one.
	for _, soon := range []func(){func() { now = now.Add(time.Second) }, tokens.Forget} {
		id, bearer, hash := auth.NewToken()
		_, err := tokens.Authenticate(t.Context(), other) // the tokens are read
		require.ErrorIs(t, err, auth.ErrRefused)
		src.tokens = append(src.tokens, auth.StoredToken{ID: id, Name: "new", Hash: hash, ExpiresAt: now.Add(4 * time.Second)})
		_, err = tokens.Authenticate(t.Context(), bearer)
		require.ErrorIs(t, err, auth.ErrRefused)
		soon()
		before := src.reads
		for range 3 {
			_, err = tokens.Authenticate(t.Context(), bearer)
			require.NoError(t, err)
		}
		require.Equal(t, before+1, src.reads)
		now = now.Add(4*time.Second - 1)
		_, err = tokens.Authenticate(t.Context(), bearer)
		require.Equal(t, !now.Before(src.tokens[len(src.tokens)-1].ExpiresAt), err != nil, "a token ends when it expires, not when it is read again")
		require.Equal(t, before+1, src.reads)
	}
	now = now.Add(1)
	before := src.reads
	_, err = tokens.Authenticate(t.Context(), bearer)
	require.NoError(t, err)
	require.Equal(t, before, src.reads)

	src.tokens = nil // revoked by another host
	now = now.Add(6 * time.Second)
	_, err = tokens.Authenticate(t.Context(), bearer)
	require.ErrorIs(t, err, auth.ErrRefused)

	src.err = errors.New("away")
	now = now.Add(6 * time.Second)
	_, err = tokens.Authenticate(t.Context(), bearer)
	require.ErrorIs(t, err, src.err)
	require.NotErrorIs(t, err, auth.ErrRefused, "a token that cannot be checked is not called invalid")
}

// vanished is a store whose machine has vanished, unless it has tokens: it never answers.
type vanished struct{ source }

func (v *vanished) LiveTokens(ctx context.Context) ([]auth.StoredToken, error) {
	if v.tokens == nil {
		v.reads++
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return v.source.LiveTokens(ctx)
}

// A store that does not answer holds requests up for five seconds in each six, and a
// client that goes away does not end the reading for the others.
func TestTokensOfAVanishedStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		id, bearer, hash := auth.NewToken()
		token := auth.StoredToken{ID: id, Name: "deploy", Hash: hash, ExpiresAt: time.Now().Add(time.Hour)}
		src := &vanished{source{tokens: []auth.StoredToken{token}}}
		var later time.Duration
		tokens := auth.NewTokens(src, 5*time.Second, func() time.Time { return time.Now().Add(later) })
		gone, leave := context.WithCancel(t.Context())
		leave()
		ask := func(takes time.Duration, reads int) error {
			began := time.Now()
			_, err := tokens.Authenticate(gone, bearer)
			require.Equal(t, takes, time.Since(began))
			require.Equal(t, reads, src.reads)
			return err
		}
		require.NoError(t, ask(0, 1))
		src.tokens = nil
		require.NoError(t, ask(0, 1))
		later += 5 * time.Second
		for i, takes := range []time.Duration{5 * time.Second, 0, 0} {
			err := ask(takes, 2)
			require.ErrorIs(t, err, context.DeadlineExceeded, i)
			require.NotErrorIs(t, err, auth.ErrRefused, i)
		}
		later += time.Second - 1
		require.Error(t, ask(0, 2))
		later++
		require.Error(t, ask(5*time.Second, 3))
		src.tokens = []auth.StoredToken{token}
		require.Error(t, ask(0, 3))
		tokens.Forget() // one was issued: the store answers
		require.NoError(t, ask(0, 4))
	})
}

// signed signs claims with a key of the given name.
func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, claims any) string {
	t.Helper()
	o := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		o = o.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	require.NoError(t, err)
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	require.NoError(t, err)
	return text
}

func TestJWT(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	foreign, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: rsaKey.Public(), KeyID: "r", Algorithm: "RS256", Use: "sig"},
		{Key: ecKey.Public(), KeyID: "e", Use: "sig"},
		{Key: []byte("a secret that is shared with all!"), KeyID: "h", Algorithm: "HS256"},
	}})
	require.NoError(t, err)
	var fetched atomic.Int64
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		_, _ = w.Write(set)
	}))
	defer issuer.Close()
	j, err := auth.NewJWT(auth.JWTConfig{
		Issuer: "https://id", Audience: "tasker", KeysURL: issuer.URL, KeysRefresh: time.Hour,
		Algorithms: []string{"RS256", "PS256", "ES256"}, ClockSkew: time.Minute, PermissionsClaim: "scope",
	}, func() time.Time { return now })
	require.NoError(t, err)

	with := func(change map[string]any) map[string]any {
		c := map[string]any{
			"iss": "https://id", "aud": "tasker", "sub": "alice", "exp": now.Add(time.Hour).Unix(), "scope": "openid task:operate",
		}
		for k, v := range change {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
		return c
	}
	for name, good := range map[string]string{
		"RS256":         signed(t, jose.RS256, rsaKey, "r", with(nil)),
		"ES256":         signed(t, jose.ES256, ecKey, "e", with(map[string]any{"aud": []string{"x", "tasker"}})),
		"skewed":        signed(t, jose.RS256, rsaKey, "r", with(map[string]any{"exp": now.Add(-50 * time.Second).Unix()})),
		"list of scope": signed(t, jose.RS256, rsaKey, "r", with(map[string]any{"scope": []string{"task:operate"}})),
	} {
		p, err := j.Authenticate(t.Context(), good)
		require.NoError(t, err, name)
		require.Equal(t, "jwt:alice", p.String(), name)
		require.Equal(t, []string{"task:operate"}, p.Permissions.Strings(), name)
	}

	public, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	require.NoError(t, err)
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	payload, err := json.Marshal(with(nil))
	require.NoError(t, err)
	for name, bad := range map[string]string{
		"alg none":             part(`{"alg":"none"}`) + "." + part(string(payload)) + ".",
		"no alg":               part(`{"kid":"r"}`) + "." + part(string(payload)) + "." + part("x"),
		"HMAC of a public key": signed(t, jose.HS256, asPEM, "r", with(nil)),
		"HMAC of a secret":     signed(t, jose.HS256, []byte("a secret that is shared with all!"), "h", with(nil)),
		"another alg than key": signed(t, jose.PS256, rsaKey, "r", with(nil)),
		"another key":          signed(t, jose.RS256, foreign, "r", with(nil)),
		"unknown kid":          signed(t, jose.RS256, rsaKey, "../../etc/passwd", with(nil)),
		"expired":              signed(t, jose.RS256, rsaKey, "r", with(map[string]any{"exp": now.Add(-90 * time.Second).Unix()})),
		"no expiry":            signed(t, jose.RS256, rsaKey, "r", with(map[string]any{"exp": nil})),
		"not yet":              signed(t, jose.RS256, rsaKey, "r", with(map[string]any{"nbf": now.Add(90 * time.Second).Unix()})),
		"issued later":         signed(t, jose.RS256, rsaKey, "r", with(map[string]any{"iat": now.Add(90 * time.Second).Unix()})),
		"another issuer":       signed(t, jose.RS256, rsaKey, "r", with(map[string]any{"iss": "https://evil"})),
		"no issuer":            signed(t, jose.RS256, rsaKey, "r", with(map[string]any{"iss": nil})),
		"another audience":     signed(t, jose.RS256, rsaKey, "r", with(map[string]any{"aud": "billing"})),
		"no audience":          signed(t, jose.RS256, rsaKey, "r", with(map[string]any{"aud": nil})),
		"no subject":           signed(t, jose.RS256, rsaKey, "r", with(map[string]any{"sub": nil})),
		"long subject":         signed(t, jose.RS256, rsaKey, "r", with(map[string]any{"sub": strings.Repeat("a", 256)})),
		"periods":              strings.Repeat(".", 1<<20),
		"nothing":              "",
	} {
		_, err := j.Authenticate(t.Context(), bad)
		require.ErrorIs(t, err, auth.ErrRefused, name)
		why := map[string]string{
			"another key": "signature does not verify", "another alg than key": "signature does not verify", "expired": "has expired", "no expiry": "has no expiry", "not yet": "not valid yet",
			"another issuer": "another issuer", "another audience": "another audience", "no subject": "has no subject", "long subject": "has no subject",
		}
		require.ErrorContains(t, err, why[name], name)
	}
	require.LessOrEqual(t, fetched.Load(), int64(2), "strangers cannot make the host fetch keys again and again")

	file := filepath.Join(t.TempDir(), "key.pem")
	require.NoError(t, os.WriteFile(file, asPEM, 0o600))
	fromFile, err := auth.NewJWT(auth.JWTConfig{
		Issuer: "https://id", Audience: "tasker", KeysFile: file, KeysRefresh: time.Hour,
		Algorithms: []string{"RS256"}, PermissionsClaim: "scope",
	}, func() time.Time { return now })
	require.NoError(t, err)
	_, err = fromFile.Authenticate(t.Context(), signed(t, jose.RS256, rsaKey, "", with(nil)))
	require.NoError(t, err)
	_, err = fromFile.Authenticate(t.Context(), signed(t, jose.RS256, rsaKey, "x", with(nil)))
	require.NoError(t, err, "a key without a name may have signed any")

	// The prefix of the host's own tokens distinguishes the two kinds.
	_, own, hash := auth.NewToken()
	src := &source{tokens: []auth.StoredToken{{ID: own[4:16], Name: "deploy", Hash: hash, ExpiresAt: now.Add(time.Hour)}}}
	both := auth.Any{Tokens: auth.NewTokens(src, time.Hour, func() time.Time { return now }), JWT: j}
	for want, bearer := range map[string]string{"token:deploy": own, "jwt:alice": signed(t, jose.RS256, rsaKey, "r", with(nil))} {
		p, err := both.Authenticate(t.Context(), bearer)
		require.NoError(t, err)
		require.Equal(t, want, p.String())
	}
	for _, bad := range []string{own[:len(own)-1] + "!", signed(t, jose.RS256, foreign, "r", with(nil))} {
		_, err = both.Authenticate(t.Context(), bad)
		require.ErrorIs(t, err, auth.ErrRefused)
	}
	issuer.Close()
	now = now.Add(4 * time.Hour)
	_, err = both.Authenticate(t.Context(), signed(t, jose.RS256, rsaKey, "r", with(nil)))
	require.ErrorContains(t, err, "check a JSON Web Token: fetch the issuer's keys")
	require.NotErrorIs(t, err, auth.ErrRefused)
	_, err = both.Authenticate(t.Context(), strings.Repeat("a", 16<<10+1))
	require.ErrorIs(t, err, auth.ErrRefused)
	require.ErrorContains(t, err, "too long")
}

// Keys in a file that cannot verify an issuer's signatures are ignored, and a file with
// no others is an error that names the file.
func TestKeyFiles(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	set := func(keys ...jose.JSONWebKey) string {
		text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
		require.NoError(t, err)
		return string(text)
	}
	good := set(jose.JSONWebKey{Key: key.Public(), KeyID: "e"})
	for text, want := range map[string]string{
		good: "",
		strings.Replace(good, `[`, `[{"kty":"of the future"},`, 1):           "",
		set(jose.JSONWebKey{Key: key.Public(), KeyID: "e", Use: "enc"}):      "no public key",
		set(jose.JSONWebKey{Key: key, KeyID: "e", Use: "sig"}):               "no public key",
		set(jose.JSONWebKey{Key: []byte("shared by all of us"), KeyID: "e"}): "no public key",
		`{}`: "no public key",
		`x`:  "neither PEM nor",
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})): "not a public key",
	} {
		file := filepath.Join(t.TempDir(), "keys")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		_, err := auth.NewJWT(auth.JWTConfig{KeysFile: file}, time.Now)
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, file)
	}
	_, err = auth.NewJWT(auth.JWTConfig{KeysFile: "/nonexistent"}, time.Now)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Clients' allowances fill up again over time. If there are more clients than can be
// remembered, those that lose nothing by it are forgotten first.
func TestLimiter(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := auth.NewLimiter(2, 3, func() time.Time { return now })
	for range 3 {
		require.Zero(t, l.Allow("busy"))
	}
	for range 2 { // refused requests cost nothing
		require.Equal(t, 500*time.Millisecond, l.Allow("busy"))
	}
	now = now.Add(500 * time.Millisecond)
	require.Zero(t, l.Allow("busy"))
	for i := range 5_000 {
		require.Zero(t, l.Allow("has none left "+strconv.Itoa(i)))
		require.Zero(t, l.Allow("has none left "+strconv.Itoa(i)))
		require.Zero(t, l.Allow("has none left "+strconv.Itoa(i)))
	}
	for i := range 4_999 {
		require.Zero(t, l.Allow("came once "+strconv.Itoa(i)))
	}
	now = now.Add(500 * time.Millisecond) // those that came once have their full allowance again
	require.Equal(t, 10_000, auth.Remembered(l))
	require.Zero(t, l.Allow("one more"))
	require.Equal(t, 5_002, auth.Remembered(l))
	for i := range 30_000 { // nobody can be forgotten without loss, but the host's memory must be bounded
		l.Allow(strconv.Itoa(i))
		require.LessOrEqual(t, auth.Remembered(l), 10_000)
	}
	require.Greater(t, auth.Remembered(l), 8_999)
}

func FuzzBearer(f *testing.F) {
	_, bearer, _ := auth.NewToken()
	for _, seed := range []string{bearer, "tsk_", "a.b.c", "eyJhbGciOiJub25lIn0..", "\x00"} {
		f.Add(seed)
	}
	any := auth.Any{Tokens: auth.NewTokens(&source{}, time.Hour, time.Now)}
	f.Fuzz(func(t *testing.T, bearer string) {
		_, err := any.Authenticate(t.Context(), bearer)
		require.ErrorIs(t, err, auth.ErrRefused)
	})
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "task", "task:", ":read", "task:nothing", "task:Read", "*", "tasks:read", "task:read:x"} {
		_, err := auth.ParsePermissions([]string{bad})
		require.Error(t, err, bad)
		require.Empty(t, auth.KnownPermissions([]string{bad}), bad)
	}
	all, err := auth.ParsePermissions([]string{"*:read", "task:operate"})
	require.NoError(t, err)
	require.True(t, all.Within(auth.Everything()))
	require.False(t, auth.Everything().Within(all))
	require.True(t, all.Within(all))
	require.False(t, all.Allows(auth.Permission{Resource: auth.Task}), "an empty text is not a permission")
	for _, r := range auth.Resources {
		require.True(t, all.Allows(auth.Permission{Resource: r, Level: auth.Read}), r)
		require.Equal(t, r == auth.Task, all.Allows(auth.Permission{Resource: r, Level: auth.Operate}), r)
	}
	again, err := auth.ParsePermissions([]string{"task:operate", "task:read", "*:read"})
	require.NoError(t, err)
	require.Equal(t, all, again, "the highest level counts, whatever the order")
	_, err = auth.ParsePermissions([]string{"tasks:read"})
	require.ErrorContains(t, err, "a resource of "+string(auth.Resources[0])+", ")
}

// An issuer's keys are read again when they are older than KeysRefresh, and at once,
// though not too often, for a token that names an unknown key. While the issuer is
// unavailable, the known keys are used for four times as long.
func TestKeysAreReadAgain(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	var published atomic.Pointer[jose.JSONWebKeySet]
	var fetched atomic.Int64
	var away atomic.Bool
	var elsewhere atomic.Pointer[string]
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetched.Add(1)
		if to := elsewhere.Load(); to != nil {
			http.Redirect(w, r, *to, http.StatusFound)
			return
		}
		if away.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_ = json.NewEncoder(w).Encode(published.Load())
	}))
	defer issuer.Close()
	keys := map[string]*ecdsa.PrivateKey{}
	publish := func(ids ...string) {
		set := &jose.JSONWebKeySet{}
		for _, id := range ids {
			if keys[id] == nil {
				key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
				require.NoError(t, err)
				keys[id] = key
			}
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: keys[id].Public(), KeyID: id})
		}
		published.Store(set)
	}
	j, err := auth.NewJWT(auth.JWTConfig{
		Issuer: "https://id", Audience: "tasker", KeysURL: issuer.URL, KeysRefresh: 5 * time.Minute, Algorithms: []string{"ES256"}, PermissionsClaim: "scope",
	}, func() time.Time { return now })
	require.NoError(t, err)
	ask := func(id string) error {
		_, err := j.Authenticate(t.Context(), signed(t, jose.ES256, keys[id], id, map[string]any{
			"iss": "https://id", "aud": "tasker", "sub": "a", "exp": now.Add(time.Hour).Unix(),
		}))
		return err
	}
	publish("one")
	require.NoError(t, ask("one"))
	require.EqualValues(t, 1, fetched.Load())

	publish("one", "two")
	now = now.Add(time.Second)
	require.ErrorIs(t, ask("two"), auth.ErrRefused, "a stranger cannot cause the keys to be read at will")
	now = now.Add(10 * time.Second)
	require.NoError(t, ask("two"), "an unknown key causes them to be read again")
	require.EqualValues(t, 2, fetched.Load())

	publish("two") // one is withdrawn
	now = now.Add(10 * time.Second)
	require.NoError(t, ask("one"), "which is noticed when they are next read")
	now = now.Add(5 * time.Minute)
	require.ErrorIs(t, ask("one"), auth.ErrRefused)

	away.Store(true)
	now = now.Add(6 * time.Minute)
	require.NoError(t, ask("two"), "an issuer that is briefly unavailable locks nobody out")
	now = now.Add(20 * time.Minute)
	err = ask("two")
	require.Error(t, err)
	require.NotErrorIs(t, err, auth.ErrRefused, "keys that are too old are not used")
	asked := fetched.Load()
	require.ErrorContains(t, ask("two"), "a moment ago")
	require.Equal(t, asked, fetched.Load(), "an unavailable issuer is not asked for each request")
	other := issuer.URL + "/elsewhere"
	elsewhere.Store(&other)
	now = now.Add(time.Second)
	require.ErrorContains(t, ask("two"), "auth.jwt.keys_url redirects")
	elsewhere.Store(nil)
	away.Store(false)
	now = now.Add(10 * time.Second)
	require.NoError(t, ask("two"))
}

// Requests that waited for an issuer that hangs do not each wait for it again.
func TestAHangingIssuerIsAskedOnce(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	var later, fetched atomic.Int64
	var hangs atomic.Bool
	now := func() time.Time {
		return time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC).Add(time.Duration(later.Load()))
	}
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		if hangs.Load() {
			later.Add(int64(10 * time.Second))
			w.WriteHeader(http.StatusGatewayTimeout)
		}
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "e"}}})
	}))
	defer issuer.Close()
	j, err := auth.NewJWT(auth.JWTConfig{
		Issuer: "https://id", Audience: "tasker", KeysURL: issuer.URL, KeysRefresh: 5 * time.Minute, Algorithms: []string{"ES256"}, PermissionsClaim: "scope",
	}, now)
	require.NoError(t, err)
	ask := func(fetches int64) error {
		_, err := j.Authenticate(t.Context(), signed(t, jose.ES256, key, "e", map[string]any{
			"iss": "https://id", "aud": "tasker", "sub": "a", "exp": now().Add(time.Hour).Unix(),
		}))
		require.Equal(t, fetches, fetched.Load())
		return err
	}
	require.NoError(t, ask(1))
	hangs.Store(true)
	later.Add(int64(6 * time.Minute))
	for range 3 {
		require.NoError(t, ask(2), "the known keys are used meanwhile")
	}
	later.Add(int64(time.Second))
	require.NoError(t, ask(3))
	later.Add(int64(20 * time.Minute))
	for range 3 {
		err := ask(4)
		require.Error(t, err, "keys that are too old are not used")
		require.NotErrorIs(t, err, auth.ErrRefused)
	}
}
