// Command unruly is the plugin of the tests of package pluginhost. Its first
// argument is how it behaves: one of the cases of main, sdk if there is none, or
// bad-PHASE-HOW to misbehave when it is called for the first time in a phase.
// Unlike chaos, which is for tests of the whole host, it knows the protocol by
// heart: most of it does without the SDK and its checks.
//
// The tests build it without the race detector, whatever they run with: it is
// started some hundred times, and each start makes a key.
package main
