package wire

import "bytes"

// HasNUL reports whether JSON has the character NUL in a text, which Go takes and
// PostgreSQL cannot store: hosts refuse such results.
func HasNUL(json []byte) bool {
	escape := []byte(`\u0000`)
	for {
		i := bytes.Index(json, escape)
		if i < 0 {
			return false
		}
		slashes := 0 // before it: of an even number, none escapes the escape's own
		for slashes < i && json[i-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return true
		}
		json = json[i+len(escape):]
	}
}
