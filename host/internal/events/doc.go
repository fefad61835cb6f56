// Package events follows what happens in the system and tells its subscribers.
//
//	database ◄── Hub: one reader ──► batches ──► Subscription … Subscription
//	    ▲                                             │
//	    └──────────── catching up, once ──────────────┘
//
// A [Hub] reads only while somebody listens, and at a limited pace. It asks by
// transaction: for what all transactions below a horizon wrote, where the horizon
// is the oldest transaction that is still open. So nothing can appear below it any
// more, whatever order transactions commit in. A [Cursor] says where in that order a
// client is; any host on the database can continue from there, without gaps and
// without repetitions. A [Subscription] that starts from a cursor first reads by
// itself up to where the hub is, and then gets the hub's batches.
//
// A batch is in memory only once, no matter how many subscriptions get it. A
// subscription that lets more than [Config.Queue] batches wait is cut off with
// [ErrTooSlow]; it can start again where it was.
//
// The price of the horizon is that a writing transaction that stays open, anywhere on
// the server, holds events up until it ends. They are late then, but not lost.
package events
