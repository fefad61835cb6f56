package wire

import "bytes"

// HasNUL reports whether JSON has the NUL character in a string, which Go accepts
// but PostgreSQL cannot store: hosts refuse such results.
func HasNUL(json []byte) bool {
	escape := []byte(`\u0000`)
	for {
		i := bytes.Index(json, escape)
		if i < 0 {
			return false
		}
		slashes := 0 // the backslashes before it: if their number is even, they do not escape this one
		for slashes < i && json[i-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return true
		}
		json = json[i+len(escape):]
	}
}
