// Package scaffold contains what `tasker plugin new` makes: a folder with a
// plugin of one kind that builds, passes its tests and runs as it is. [Write]
// makes it; the package starts nothing.
package scaffold
