package checks

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/health"
)

// DiskOptions say which file systems are checked.
type DiskOptions struct {
	Paths     []string `json:"paths" doc:"absolute paths on the file systems to check"`
	Degraded  float64  `json:"degraded" doc:"free share below which a file system is degraded, 0 to 1"`
	Unhealthy float64  `json:"unhealthy" doc:"free share below which it is unhealthy, 0 to 1"`
}

// DiskDefaults holds the default options.
var DiskDefaults = DiskOptions{Paths: []string{"/"}, Degraded: 0.15, Unhealthy: 0.05}

// Disk checks how much space file systems have, for data and for files.
type Disk struct{ options DiskOptions }

var _ health.Checker = (*Disk)(nil)

// Configure takes the options.
func (d *Disk) Configure(_ context.Context, o DiskOptions) error {
	switch {
	case len(o.Paths) == 0 || len(o.Paths) > health.MaxChecks:
		return &sdk.OptionError{Path: "/paths", Message: fmt.Sprintf("want 1 to %d paths", health.MaxChecks)}
	case o.Degraded < 0 || o.Degraded > 1:
		return &sdk.OptionError{Path: "/degraded", Message: "want a share from 0 to 1"}
	case o.Unhealthy < 0 || o.Unhealthy > o.Degraded:
		return &sdk.OptionError{Path: "/unhealthy", Message: "want a share from 0 to that of degraded"}
	}
	seen := map[string]bool{}
	for i, path := range o.Paths {
		at := fmt.Sprintf("/paths/%d", i)
		switch {
		case !filepath.IsAbs(path) || len("disk:"+path) > health.MaxNameBytes:
			return &sdk.OptionError{Path: at, Message: "want an absolute path of at most 123 bytes"}
		case seen[path]:
			return &sdk.OptionError{Path: at, Message: "is given twice"}
		}
		seen[path] = true
	}
	d.options = o
	return nil
}

// Check checks every path. A path that cannot be checked is unknown.
func (d *Disk) Check(context.Context) ([]health.Check, error) {
	checks := make([]health.Check, len(d.options.Paths))
	for i, path := range d.options.Paths {
		checks[i] = d.look(path)
	}
	return checks, nil
}

func (d *Disk) look(path string) health.Check {
	c := health.Check{Name: "disk:" + path, Status: health.Healthy}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		c.Status, c.Message = health.Unknown, fmt.Sprintf("check the file system: %v", err)
		return c
	}
	room := share(fs.Bavail, fs.Blocks)
	files := share(fs.Ffree, fs.Files)
	c.Data = map[string]any{
		"free_share": room, "free_bytes": fs.Bavail * uint64(fs.Bsize),
		"total_bytes": fs.Blocks * uint64(fs.Bsize), "free_files_share": files,
	}
	switch least := min(room, files); {
	case least < d.options.Unhealthy:
		c.Status = health.Unhealthy
	case least < d.options.Degraded:
		c.Status = health.Degraded
	default:
		return c
	}
	c.Message = fmt.Sprintf("%.1f%% of the space and %.1f%% of the files are free", 100*room, 100*files)
	return c
}

// share returns 1 where there is no limit: some file systems do not count
// files.
func share(free, total uint64) float64 {
	if total == 0 {
		return 1
	}
	return float64(free) / float64(total)
}
