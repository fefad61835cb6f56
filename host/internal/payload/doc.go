// Package payload is the gate in front of every path into jsonb: contexts of tasks,
// results and metadata of steps, configurations of templates, bodies of messages.
// PostgreSQL stores whatever passes [Check]; what Check rejects never reaches a
// transaction that would fail again and again.
//
// It exists because Go and jsonb disagree: encoding/json accepts NUL, broken UTF-8, lone
// surrogates, duplicate keys and numbers of any size, changes some of them silently, and
// stops at a depth of 10,000; jsonb rejects or drops them. The gate accepts what both
// read the same way, and changes nothing: bytes that pass are forwarded as they came, so
// numbers keep their digits.
//
// A number that jsonb stores in a few bytes may be printed with 131,072 digits
// (1e131071), so size limits count numbers as they will be read back.
//
// The package is a leaf: it imports none of our packages. All functions are pure and safe
// for concurrent use.
package payload
