package core

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/client"
)

// certify writes a certificate for this machine and its key, and returns the certificate.
func certify(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	for file, block := range map[string]*pem.Block{"key.pem": {Type: "PRIVATE KEY", Bytes: private}, "cert.pem": {Type: "CERTIFICATE", Bytes: der}} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600))
	}
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// issuer is an identity provider whose keys can be changed.
type issuer struct {
	url  string
	keys atomic.Pointer[jose.JSONWebKeySet]
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	i.keys.Store(&jose.JSONWebKeySet{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(i.keys.Load()) }))
	t.Cleanup(s.Close)
	i.url = s.URL
	return i
}

func (i *issuer) publish(id string, key crypto.PublicKey) {
	i.keys.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: id, Use: "sig"}}})
}

// claims returns the claims of a valid token, with changes; nil removes one.
func claims(change map[string]any) map[string]any {
	c := map[string]any{
		"iss": "https://id.example", "aud": "tasker", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix(), "roles": "task:read template:administer",
	}
	for name, value := range change {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
	return c
}

func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, id string, change map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", id))
	require.NoError(t, err)
	text, err := jwt.Signed(signer).Claims(claims(change)).Serialize()
	require.NoError(t, err)
	return text
}

// visitor sends requests to a host over TCP.
type visitor struct {
	base  string
	roots *x509.CertPool
}

// ask returns the status and the response; each request uses a new connection.
func (v visitor) ask(t *testing.T, method, path, bearer, body string) (int, string, *tls.ConnectionState) {
	t.Helper()
	c := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: v.roots, MinVersion: tls.VersionTLS12},
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, v.base+path, strings.NewReader(body))
	require.NoError(t, err)
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text), resp.TLS
}

func (v visitor) status(t *testing.T, bearer string) int {
	t.Helper()
	status, _, _ := v.ask(t, "GET", "/v1/tasks", bearer, "")
	return status
}

const guarded = `
[system]
http_listen = "127.0.0.1:0"
[auth]
enabled = true
token_refresh = "100ms"
requests_per_second = 1000
burst = 1000
[auth.jwt]
issuer = "https://id.example"
audience = "tasker"
keys_refresh = "1s"
algorithms = "ES256"
clock_skew = "30s"
permissions_claim = "roles"
`

// startGuarded starts a host that requires tokens, over TLS.
func startGuarded(t *testing.T, id *issuer, more string) (b *bed, v visitor, certs string) {
	t.Helper()
	certs = t.TempDir()
	v.roots = x509.NewCertPool()
	v.roots.AddCert(certify(t, certs, "first"))
	b = start(t, guarded+more, "TASKER__AUTH__JWT__KEYS_URL="+id.url,
		"TASKER__AUTH__TLS__CERT_FILE="+filepath.Join(certs, "cert.pem"), "TASKER__AUTH__TLS__KEY_FILE="+filepath.Join(certs, "key.pem"))
	v.base = "https://" + b.listens(t)
	return b, v, certs
}

// The tokens of an identity provider, and everything that must not be accepted as one.
func TestTokensOfAnIdentityProvider(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	id := newIssuer(t)
	id.publish("one", key.Public())
	b, v, _ := startGuarded(t, id, "")

	require.Equal(t, 200, v.status(t, signed(t, jose.ES256, key, "one", nil)))
	require.Equal(t, 200, v.status(t, signed(t, jose.ES256, key, "one", map[string]any{"aud": []string{"x", "tasker"}})))
	require.Equal(t, 200, v.status(t, signed(t, jose.ES256, key, "one", map[string]any{"exp": time.Now().Add(-5 * time.Second).Unix()})), "within auth.jwt.clock_skew")
	status, text, _ := v.ask(t, "POST", "/v1/queues/shop/pause", signed(t, jose.ES256, key, "one", nil), "{}")
	require.Equal(t, 403, status)
	require.Contains(t, text, "jwt:alice may not do this: it requires the permission queue:operate")
	require.Equal(t, 403, v.status(t, signed(t, jose.ES256, key, "one", map[string]any{"roles": nil, "scope": "task:read"})), "auth.jwt.permissions_claim")

	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	payload, err := json.Marshal(claims(nil))
	require.NoError(t, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	bad := map[string]string{
		"nothing":              "",
		"no token":             "x",
		"alg none":             part(`{"alg":"none","kid":"one"}`) + "." + part(string(payload)) + ".",
		"HMAC of a public key": signed(t, jose.HS256, asPEM, "one", nil),
		"not allowed":          signed(t, jose.RS256, rsaKey, "one", nil),
		"another key":          signed(t, jose.ES256, other, "one", nil),
		"another issuer":       signed(t, jose.ES256, key, "one", map[string]any{"iss": "https://evil.example"}),
		"another audience":     signed(t, jose.ES256, key, "one", map[string]any{"aud": "billing"}),
		"expired":              signed(t, jose.ES256, key, "one", map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}),
		"no expiry":            signed(t, jose.ES256, key, "one", map[string]any{"exp": nil}),
		"not yet":              signed(t, jose.ES256, key, "one", map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}),
	}
	for name, bearer := range bad {
		require.Equal(t, 401, v.status(t, bearer), name)
	}

	// The issuer changes its key: the new one is valid, the old one no longer.
	id.publish("two", other.Public())
	b.eventually(t, "the new key", func() bool { return v.status(t, signed(t, jose.ES256, other, "two", nil)) == 200 })
	b.eventually(t, "the old key is refused", func() bool { return v.status(t, signed(t, jose.ES256, key, "one", nil)) == 401 }) // possibly 429 in between
	require.NotContains(t, b.log.String(), bad["expired"])
}

// Keys from a file instead, which is read again when it has changed.
func TestKeysOfAnIdentityProviderInAFile(t *testing.T) {
	t.Parallel()
	write := func(path string) *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
		return key
	}
	file := filepath.Join(t.TempDir(), "issuer.pem")
	key := write(file)
	b := start(t, guarded, "TASKER__AUTH__JWT__KEYS_FILE="+file)
	v := visitor{base: "http://" + b.listens(t)}
	require.Equal(t, 200, v.status(t, signed(t, jose.ES256, key, "", nil)))
	next := write(file)
	b.eventually(t, "the new key", func() bool { return v.status(t, signed(t, jose.ES256, next, "", nil)) == 200 })
	b.eventually(t, "the old key is refused", func() bool { return v.status(t, signed(t, jose.ES256, key, "", nil)) == 401 }) // possibly 429 in between
}

// The host's own tokens: shown once, stored as a hash, and useless once they have expired
// or were revoked, by this or another host.
func TestTokensOfTheHost(t *testing.T) {
	t.Parallel()
	id := newIssuer(t)
	b, v, _ := startGuarded(t, id, "")
	made := func(name string) string {
		token, err := b.api.CreateToken(t.Context(), client.TokenOrder{Name: name, Permissions: []string{"task:read"}, ExpiresIn: 3600})
		require.NoError(t, err)
		require.Equal(t, 200, v.status(t, token.Bearer))
		return token.Bearer
	}
	here, elsewhere, old := made("here"), made("elsewhere"), made("old")
	require.Zero(t, scalar[int](t, b, "select count(*) from tasker_tokens t where t::text like '%' || $1 || '%'", here[17:]), "only a hash is kept")

	_, err := b.api.RevokeToken(t.Context(), "here")
	require.NoError(t, err)
	require.Equal(t, 401, v.status(t, here), "at once")
	_, err = b.pool.Exec(t.Context(), "update tasker_tokens set revoked_at = clock_timestamp(), revoked_by = 'another host' where name = 'elsewhere'")
	require.NoError(t, err)
	b.eventually(t, "auth.token_refresh", func() bool { return v.status(t, elsewhere) == 401 })
	_, err = b.pool.Exec(t.Context(), "update tasker_tokens set created_at = created_at - interval '2 days', expires_at = clock_timestamp() where name = 'old'")
	require.NoError(t, err)
	b.eventually(t, "the expiry", func() bool { return v.status(t, old) == 401 })
	for _, bearer := range []string{here, elsewhere, old} {
		require.NotContains(t, b.log.String(), bearer)
	}
}

// auth.tls: nothing is answered unencrypted, and a renewed certificate is used.
func TestTLS(t *testing.T) {
	t.Parallel()
	b, v, certs := startGuarded(t, newIssuer(t), "")
	plain := visitor{base: strings.Replace(v.base, "https", "http", 1)}
	status, _, _ := plain.ask(t, "GET", "/health/live", "", "")
	require.Equal(t, 400, status, "HTTP on a port for HTTPS")
	status, _, state := v.ask(t, "GET", "/health/live", "", "")
	require.Equal(t, 200, status)
	require.Equal(t, "first", state.PeerCertificates[0].Subject.CommonName)
	require.GreaterOrEqual(t, state.Version, uint16(tls.VersionTLS12))
	_, err := tls.Dial("tcp", strings.TrimPrefix(v.base, "https://"), &tls.Config{RootCAs: v.roots, MaxVersion: tls.VersionTLS11})
	require.Error(t, err)

	v.roots.AddCert(certify(t, certs, "second"))
	later := time.Now().Add(time.Minute)
	require.NoError(t, os.Chtimes(filepath.Join(certs, "cert.pem"), later, later))
	b.eventually(t, "the renewed certificate", func() bool {
		_, _, state := v.ask(t, "GET", "/health/live", "", "")
		return state.PeerCertificates[0].Subject.CommonName == "second"
	})
	require.NoError(t, os.WriteFile(filepath.Join(certs, "key.pem"), []byte("half a fi"), 0o600))
	status, _, _ = v.ask(t, "GET", "/health/live", "", "")
	require.Equal(t, 200, status, "the old one is used while the files are invalid")
}

// auth.requests_per_second and burst apply to each client separately, and a body that is
// too large is not read.
func TestLimitsOfClients(t *testing.T) {
	t.Parallel()
	b := start(t, `
[system]
http_listen = "127.0.0.1:0"
max_context_bytes = 4096
[auth]
enabled = true
requests_per_second = 1
burst = 5
`)
	v := visitor{base: "http://" + b.listens(t)}
	bearer := func(name string) string {
		token, err := b.api.CreateToken(t.Context(), client.TokenOrder{Name: name, Permissions: []string{"*:operate"}, ExpiresIn: 3600})
		require.NoError(t, err)
		return token.Bearer
	}
	greedy, modest := bearer("greedy"), bearer("modest")
	statuses := map[int]int{}
	for range 30 {
		statuses[v.status(t, greedy)]++
	}
	require.GreaterOrEqual(t, statuses[200], 5)
	require.Positive(t, statuses[429])
	require.Equal(t, 200, v.status(t, modest), "other clients are not delayed")
	status, _, _ := v.ask(t, "POST", "/v1/tasks", modest, `{"namespace": "n", "name": "x", "context": {"a": "`+strings.Repeat("x", 20_000)+`"}}`)
	require.Equal(t, 413, status)
	for range 30 { // the socket has no limit
		_, err := b.api.Configuration(t.Context())
		require.NoError(t, err)
	}
}

// auth.enabled: without it everybody on this machine has access, with it nobody without a
// token.
func TestAuthIsOffOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	open := start(t, "[system]\nhttp_listen = \"127.0.0.1:0\"\n")
	require.Equal(t, 200, visitor{base: "http://" + open.listens(t)}.status(t, ""))
	closed := start(t, "[system]\nhttp_listen = \"127.0.0.1:0\"\n[auth]\nenabled = true\n")
	require.Equal(t, 401, visitor{base: "http://" + closed.listens(t)}.status(t, ""))

	// Other addresses are refused when the configuration is loaded.
	closed.write(t, "host.toml", "[system]\nhttp_listen = \"0.0.0.0:0\"\n")
	_, err := closed.api.ReloadConfiguration(context.WithoutCancel(t.Context()))
	require.ErrorContains(t, err, "can be reached from other machines: set auth.enabled = true")
}
