package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Bounds are the minimum and maximum number of executors of a pool.
type Bounds struct{ Min, Max int }

// Bounds returns the bounds of a namespace's pool.
func (s *StepExecution) Bounds(namespace string) Bounds {
	named, _ := s.parse() // validated when it was loaded
	if b, ok := named[namespace]; ok {
		return b
	}
	return Bounds{s.Min, s.Max}
}

const maxExecutors = 100_000

func (s *StepExecution) parse() (map[string]Bounds, error) {
	name := regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)
	found := map[string]Bounds{}
	if strings.TrimSpace(s.Namespaces) == "" {
		return found, nil
	}
	for item := range strings.SplitSeq(s.Namespaces, ",") {
		ns, text, ok := strings.Cut(strings.TrimSpace(item), "=")
		low, high, dots := strings.Cut(text, "..")
		least, err1 := strconv.Atoi(low)
		most, err2 := strconv.Atoi(high)
		switch _, twice := found[ns]; {
		case !ok || !dots || err1 != nil || err2 != nil || least < 1 || most < least || most > maxExecutors:
			return nil, fmt.Errorf(`%.80q: want namespaces with their minimum and maximum number of executors, such as "shop=8..64, lab=1..4"`, item)
		case !name.MatchString(ns):
			return nil, fmt.Errorf("%.80q is not a valid name for a namespace", ns)
		case twice:
			return nil, fmt.Errorf("namespace %s is listed twice", ns)
		}
		found[ns] = Bounds{least, most}
	}
	return found, nil
}
