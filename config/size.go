package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Bytes is a size. In files, it has a unit: "64KiB", "256MiB".
type Bytes int64

// units from the largest to the smallest.
var units = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// ParseBytes reads a size: a whole number and a unit, or "0".
func ParseBytes(text string) (Bytes, error) {
	wrong := fmt.Errorf(`want a size with its unit, such as "256MiB", got %.40q`, text)
	if text == "0" {
		return 0, nil
	}
	for _, u := range units {
		digits, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.bytes {
			return 0, wrong
		}
		return Bytes(n * u.bytes), nil
	}
	return 0, wrong
}

// String returns the size in the largest unit that needs no fraction.
func (b Bytes) String() string {
	if b == 0 {
		return "0"
	}
	for _, u := range units {
		if int64(b)%u.bytes == 0 {
			return strconv.FormatInt(int64(b)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}
