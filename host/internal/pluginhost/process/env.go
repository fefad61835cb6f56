package process

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment returns everything the plugin sees: the variables of the handshake, a path,
// a language, its own directory for temporary files, the limits of the Go runtime, and
// those of the host's variables that are allowed by name. Each appears once: of two, some
// programs would use the first and others the last.
func environment(cfg Config, handshake []string, dir string) []string {
	env := append(slices.Clone(handshake),
		"PATH="+lookupOr("PATH", defaultPath),
		"LANG="+lookupOr("LANG", "C.UTF-8"),
		"TMPDIR="+dir,
	)
	if cfg.MemoryLimit > 0 {
		env = append(env, "GOMEMLIMIT="+strconv.FormatInt(cfg.MemoryLimit, 10))
	}
	if cfg.MaxProcs > 0 {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(cfg.MaxProcs))
	}
	for _, name := range cfg.PassEnv {
		taken := slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
		if value, ok := os.LookupEnv(name); ok && !taken {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func lookupOr(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}
