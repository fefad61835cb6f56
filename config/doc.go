// Package config reads and checks the configuration of a host: typed, strict
// and in layers. The host calls [Load] once at start; the result is immutable
// and passed on in parts, so that nothing else reads files or the environment.
//
// Layers, a later one wins key by key:
//
//  1. the base built into the binary (base/*.toml), which contains all defaults
//  2. the environment built into the binary (environments/<env>/*.toml)
//  3. the operator's directory (*.toml), named by --config or TASKER_CONFIG
//  4. that directory's environments/<env>/*.toml
//  5. environment variables: TASKER__DATABASE__MAX_CONNECTIONS=20 sets
//     database.max_connections, and DATABASE_URL sets database.url
//  6. overrides on the command line
//
// The environment is development, test, production, or one that has a folder in the
// operator's directory.
//
// Nothing is guessed: an unknown key, a wrong type, a value out of range, one
// key in two files of a layer, and conflicting time budgets are problems. They are
// reported all at once, as an [*Error], each with its file, line and the nearest valid
// key. Messages never contain the values of secrets.
//
// [LoadPlugins] reads plugins.toml by the same rules.
//
// The package imports no other package of ours except internal/spelling, and uses
// neither the database nor plugins.
package config
