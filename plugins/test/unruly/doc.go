// Command unruly is the plugin of the tests of package pluginhost. Its first
// argument says how it behaves: one of the cases in main, sdk if there is none,
// or bad-PHASE-HOW to misbehave when it is called for the first time in a phase.
// Unlike chaos, which is for tests of the whole host, it speaks the protocol
// itself: most of it does not use the SDK and its checks.
//
// The tests always build it without the race detector, because it is started
// some hundred times, and each start generates a key.
package main
