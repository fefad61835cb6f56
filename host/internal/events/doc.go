// Package events follows what happens in the system and tells those who ask.
//
//	database ◄── Hub: one reader ──► batches ──► Subscription … Subscription
//	    ▲                                             │
//	    └──────────── catching up, once ──────────────┘
//
// A [Hub] reads while somebody listens, at a pace, and never otherwise. It asks
// by transaction: what all transactions below a horizon wrote, where the horizon
// is the oldest one that is still open, so that nothing can appear below it any
// more, whatever order they commit in. A [Cursor] says where in that order a
// client stands; any host on the database goes on from it, without a gap and
// without a repetition. A [Subscription] that starts from a cursor first reads by
// itself up to where the hub is, and then gets the hub's batches.
//
// A batch is in memory once, whoever it is for. A subscription that lets more
// than [Config.Queue] batches wait is cut off with [ErrTooSlow]; it can start
// again where it was.
//
// The price of the horizon: a transaction that writes and stays open, anywhere on
// the server, holds events up until it ends. They are late then, not lost.
package events
