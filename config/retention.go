package config

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// maxRetention is the longest time that a namespace may keep its tasks.
const maxRetention = 175200 * time.Hour

// ByNamespace returns how long the listed namespaces keep their tasks.
func (r *Retention) ByNamespace() map[string]time.Duration {
	found, _ := r.parse() // validated when it was loaded
	return found
}

func (r *Retention) parse() (map[string]time.Duration, error) {
	name := regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)
	found := map[string]time.Duration{}
	if strings.TrimSpace(r.Namespaces) == "" {
		return found, nil
	}
	for item := range strings.SplitSeq(r.Namespaces, ",") {
		ns, text, ok := strings.Cut(strings.TrimSpace(item), "=")
		d, err := time.ParseDuration(text)
		switch _, twice := found[ns]; {
		case !ok || err != nil || d < 0 || d > maxRetention:
			return nil, fmt.Errorf(`%.80q: want namespaces with the time to keep their tasks, such as "shop=2160h, lab=24h"`, item)
		case !name.MatchString(ns):
			return nil, fmt.Errorf("%.80q is not a valid name for a namespace", ns)
		case twice:
			return nil, fmt.Errorf("namespace %s is listed twice", ns)
		}
		found[ns] = d
	}
	return found, nil
}
