package telemetry

import (
	"runtime/debug"
	"strings"
)

// Build describes the running binary.
type Build struct {
	Version  string `json:"version"`            // the module's version, "(devel)" for a build from a checkout
	Revision string `json:"revision,omitempty"` // the commit, with "+changes" if files were changed; may be empty
	Time     string `json:"time,omitempty"`     // the commit's time, RFC 3339; may be empty
	Go       string `json:"go"`                 // the toolchain
}

// String returns the build on one line.
func (b Build) String() string {
	parts := []string{b.Version}
	for _, part := range []string{b.Revision, b.Time, b.Go} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, " ")
}

// ThisBuild reads what the toolchain recorded in the running binary.
func ThisBuild() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Build{Version: "unknown"}
	}
	return buildOf(info)
}

func buildOf(info *debug.BuildInfo) Build {
	b := Build{Version: info.Main.Version, Go: info.GoVersion}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	changed := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	if changed && b.Revision != "" {
		b.Revision += "+changes"
	}
	return b
}
