package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Settings that would let strangers in, or expose tokens, are refused.
func TestAuthThatWouldNotProtect(t *testing.T) {
	t.Parallel()
	jwt := []string{"auth.jwt.issuer=https://id", "auth.jwt.audience=tasker", "auth.jwt.keys_url=https://id/keys"}
	with := func(more ...string) []string { return append(append([]string{}, jwt...), more...) }
	cases := map[string]struct {
		set  []string
		want string // in the problem; empty: none
	}{
		"beyond loopback":           {[]string{"system.http_listen=0.0.0.0:80"}, "set auth.enabled = true and create a token with 'tasker token create'"},
		"beyond loopback, by IPv6":  {[]string{"system.http_listen=[::]:80"}, "set auth.enabled = true"},
		"a name":                    {[]string{"system.http_listen=host:80", "auth.enabled=true"}, "want an IP address"},
		"tokens in the clear":       {[]string{"system.http_listen=:80", "auth.enabled=true"}, "auth.tls.by_proxy = true if a proxy"},
		"proxy encrypts":            {[]string{"system.http_listen=:80", "auth.enabled=true", "auth.tls.by_proxy=true"}, ""},
		"TLS":                       {[]string{"system.http_listen=:80", "auth.enabled=true", "auth.tls.cert_file=c", "auth.tls.key_file=k"}, ""},
		"half of TLS":               {[]string{"auth.tls.cert_file=c"}, "belong together"},
		"JWT":                       {with(), ""},
		"JWT without audience":      {with("auth.jwt.audience="), "auth.jwt.audience: must be set"},
		"JWT without keys":          {with("auth.jwt.keys_url="), "set either"},
		"JWT with two keys":         {with("auth.jwt.keys_file=k"), "set either"},
		"keys from anybody":         {with("auth.jwt.keys_url=http://id/keys"), "not an https URL"},
		"keys from this machine":    {with("auth.jwt.keys_url=http://127.0.0.1/keys"), ""},
		"alg none":                  {with("auth.jwt.algorithms=none"), `"none" is not one of RS256`},
		"a shared secret":           {with("auth.jwt.algorithms=RS256,HS256"), `"HS256" is not one of RS256`},
		"no algorithm":              {with("auth.jwt.algorithms= ,"), "at least one of"},
		"keys without an issuer":    {[]string{"auth.jwt.keys_url=https://id/keys"}, "auth.jwt.issuer: must be set"},
		"no claim":                  {with("auth.jwt.permissions_claim="), "must name the claim"},
		"a burst that is too small": {[]string{"auth.requests_per_second=1000", "auth.burst=1"}, "auth.burst"},
	}
	for name, c := range cases {
		overrides := map[string]string{}
		for _, kv := range c.set {
			key, value, _ := strings.Cut(kv, "=")
			overrides[key] = value
		}
		_, err := load(t, Options{Overrides: overrides})
		if c.want == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, c.want, name)
		require.Len(t, report(t, err, "-"), 1, name)
	}
}
