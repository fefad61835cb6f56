package workflow

import (
	"time"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// Limits bounds what a template may ask for. A field that is zero or negative means its
// default.
type Limits struct {
	MaxSource       int           // bytes of a template's YAML; default 1 MiB
	MaxSteps        int           // steps of a template; default 1000, never more than [vocab.MaxSteps]
	MaxEnvironments int           // environments a template may name; default 32
	MaxConfig       int           // bytes of one step's configuration, or of the input schema, as JSON; default 1 MiB
	MaxTotalConfig  int           // bytes of all configurations in all plans together; default 16 MiB
	MaxRetryAfter   time.Duration // the longest wait a handler may ask for; default 300 s
}

// withDefaults sets missing values and caps those that no template may exceed.
func (l Limits) withDefaults() Limits {
	l.MaxSource = orDefault(l.MaxSource, 1<<20)
	l.MaxSteps = min(orDefault(l.MaxSteps, 1000), vocab.MaxSteps)
	l.MaxEnvironments = orDefault(l.MaxEnvironments, 32)
	l.MaxConfig = orDefault(l.MaxConfig, 1<<20)
	l.MaxTotalConfig = orDefault(l.MaxTotalConfig, 16<<20)
	l.MaxRetryAfter = orDefault(l.MaxRetryAfter, 300*time.Second)
	return l
}

func orDefault[T int | time.Duration](value, fallback T) T {
	if value <= 0 {
		return fallback
	}
	return value
}
