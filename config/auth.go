package config

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// signatures are the algorithms that may verify a JSON Web Token. They all use public
// keys, so that nobody can sign with a key that everybody may read.
var signatures = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// AlgorithmList returns the accepted signatures one by one.
func (j *JWT) AlgorithmList() []string {
	var list []string
	for a := range strings.SplitSeq(j.Algorithms, ",") {
		if a = strings.TrimSpace(a); a != "" {
			list = append(list, a)
		}
	}
	return list
}

// checkListen refuses an address that others can reach while requests are not
// authenticated, or their tokens could be read on the way.
func (c *Config) checkListen(ps *problems) {
	const key = "system.http_listen"
	if c.System.HTTPListen == "" {
		return
	}
	host, port, err := net.SplitHostPort(c.System.HTTPListen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		ps.add(c.origins[key], key, "%.60q is not an address: want host:port, such as 127.0.0.1:8080", c.System.HTTPListen)
		return
	}
	if isLoopback(host) {
		return
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" {
		ps.add(c.origins[key], key, "%.60q names its host: want an IP address, such as 0.0.0.0:%s for all", c.System.HTTPListen, port)
		return
	}
	if !c.Auth.Enabled {
		ps.add(c.origins[key], key,
			"%.60q can be reached from other machines: set auth.enabled = true and create a token with 'tasker token create', or listen on 127.0.0.1:%s",
			c.System.HTTPListen, port)
		return
	}
	if c.Auth.TLS.CertFile == "" && !c.Auth.TLS.ByProxy {
		ps.add(c.origins[key], key,
			"%.60q would carry tokens unencrypted: set auth.tls.cert_file and key_file, or auth.tls.by_proxy = true if a proxy in front encrypts",
			c.System.HTTPListen)
	}
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (a *Auth) check(origins map[string]Origin, ps *problems) {
	add := func(key, format string, args ...any) { ps.add(origins[key], key, format, args...) }
	if (a.TLS.CertFile == "") != (a.TLS.KeyFile == "") {
		add("auth.tls.cert_file", "auth.tls.cert_file and auth.tls.key_file belong together: set both or neither")
	}
	if a.Burst < a.RequestsPerSecond/100 {
		add("auth.burst", "must be at least a hundredth of auth.requests_per_second (%d)", a.RequestsPerSecond)
	}
	j := &a.JWT
	if j.Issuer == "" {
		if j.KeysURL != "" || j.KeysFile != "" || j.Audience != "" {
			add("auth.jwt.issuer", "must be set if auth.jwt.audience, keys_url or keys_file is set: it names who may sign")
		}
		return
	}
	if j.Audience == "" {
		add("auth.jwt.audience", "must be set: without it, a token that the issuer made for another service would be accepted")
	}
	if (j.KeysURL == "") == (j.KeysFile == "") {
		add("auth.jwt.keys_url", "set either auth.jwt.keys_url or auth.jwt.keys_file")
	}
	if u, err := url.Parse(j.KeysURL); err == nil && u.User != nil {
		// The value is not shown because it contains a secret.
		add("auth.jwt.keys_url", "must not contain a user or password: keys are public")
	} else if j.KeysURL != "" && !trustworthy(j.KeysURL) {
		add("auth.jwt.keys_url", "is not an https URL (http is allowed only for loopback addresses)")
	}
	if j.PermissionsClaim == "" {
		add("auth.jwt.permissions_claim", "must name the claim with the permissions, such as scope")
	}
	list := j.AlgorithmList()
	if len(list) == 0 {
		add("auth.jwt.algorithms", "must name at least one of %s", strings.Join(signatures, ", "))
	}
	for _, alg := range list {
		if !slices.Contains(signatures, alg) {
			add("auth.jwt.algorithms", "%.20q is not one of %s", alg, strings.Join(signatures, ", "))
		}
	}
}

// trustworthy reports whether keys from a URL certainly come from its host.
func trustworthy(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())
}
