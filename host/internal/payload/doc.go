// Package payload is the gate in front of every path into jsonb: contexts of
// tasks, results and metadata of steps, configurations of templates, bodies of
// messages. What [Check] lets through, PostgreSQL stores; what it refuses never
// gets as far as a transaction that would fail again and again.
//
// It exists because Go and jsonb disagree: encoding/json accepts NUL, broken
// UTF-8, lone surrogates, duplicate keys and numbers of any size, changes some
// of them silently, and stops at a depth of 10,000; jsonb refuses or drops
// them. The gate takes what both read the same way, and changes nothing: bytes
// that pass go on as they came, so numbers keep their digits.
//
// A number that jsonb stores in a few bytes may be printed with 131,072 digits
// (1e131071), so size limits count numbers as they will be read back.
//
// The package is a leaf: it knows nothing of ours. All functions are pure and
// safe for concurrent use.
package payload
